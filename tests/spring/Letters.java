import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.NoSuchElementException;
import java.util.UUID;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;

import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.SerializationException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Deserializer;
import org.springframework.context.annotation.AnnotationConfigApplicationContext;
import org.springframework.kafka.annotation.EnableKafka;
import org.springframework.kafka.annotation.KafkaListener;
import org.springframework.kafka.config.ConcurrentKafkaListenerContainerFactory;
import org.springframework.kafka.core.DefaultKafkaConsumerFactory;
import org.springframework.kafka.core.DefaultKafkaProducerFactory;
import org.springframework.kafka.core.KafkaTemplate;
import org.springframework.kafka.listener.CommonContainerStoppingErrorHandler;
import org.springframework.kafka.listener.ConcurrentMessageListenerContainer;
import org.springframework.kafka.listener.ContainerProperties;
import org.springframework.kafka.listener.DeadLetterPublishingRecoverer;
import org.springframework.kafka.listener.DefaultErrorHandler;
import org.springframework.kafka.listener.MessageListener;
import org.springframework.kafka.listener.RetryListener;
import org.springframework.kafka.support.KafkaHeaders;
import org.springframework.kafka.support.serializer.ErrorHandlingDeserializer;
import org.springframework.messaging.handler.annotation.Header;
import org.springframework.util.backoff.FixedBackOff;
import tools.jackson.databind.ObjectMapper;

/** Reads and writes dead letters as a service does that is made with Spring Kafka. */
public class Letters {
    private static final long DEADLINE_SECONDS = 60;

    public static void main(String[] args) throws Exception {
        switch (args[0]) {
            case "read" -> read(args[1], args[2], Integer.parseInt(args[3]));
            case "recover" -> recover(args[1], args[2], args[3], args[4], Integer.parseInt(args[5]));
            default -> throw new IllegalArgumentException("read or recover, not " + args[0]);
        }
    }

    /** Prints so many letters of a topic as JSON, one a line, with what Spring makes of their headers. */
    private static void read(String bootstrap, String topic, int count) throws Exception {
        var letters = new CountDownLatch(count);
        try (var context = new AnnotationConfigApplicationContext()) {
            context.getEnvironment().getSystemProperties().put("letters.topic", topic);
            context.register(Listening.class);
            context.registerBean(Reader.class, () -> new Reader(letters));
            context.registerBean("kafkaListenerContainerFactory", ConcurrentKafkaListenerContainerFactory.class, () -> {
                var factory = new ConcurrentKafkaListenerContainerFactory<byte[], byte[]>();
                factory.setConsumerFactory(consumers(bootstrap, "letters-" + UUID.randomUUID()));
                // A letter that Spring cannot read must not be read again for ever.
                factory.setCommonErrorHandler(new CommonContainerStoppingErrorHandler());
                return factory;
            });
            context.refresh();
            await(letters);
        }
    }

    @EnableKafka
    static class Listening {}

    /** Each header is there and has this type, or Spring does not call the listener. */
    static class Reader {
        private final ObjectMapper json = new ObjectMapper();
        private final CountDownLatch letters;

        Reader(CountDownLatch letters) {
            this.letters = letters;
        }

        @KafkaListener(topics = "${letters.topic}")
        void letter(
                ConsumerRecord<byte[], byte[]> record,
                @Header(KafkaHeaders.DLT_ORIGINAL_TOPIC) String topic,
                @Header(KafkaHeaders.DLT_ORIGINAL_PARTITION) int partition,
                @Header(KafkaHeaders.DLT_ORIGINAL_OFFSET) long offset,
                @Header(KafkaHeaders.DLT_ORIGINAL_TIMESTAMP) long timestamp,
                @Header(KafkaHeaders.DLT_ORIGINAL_TIMESTAMP_TYPE) String timestampType,
                @Header(KafkaHeaders.DLT_ORIGINAL_CONSUMER_GROUP) String group,
                @Header(KafkaHeaders.DLT_EXCEPTION_FQCN) String exception,
                @Header(KafkaHeaders.DLT_EXCEPTION_CAUSE_FQCN) String cause,
                @Header(KafkaHeaders.DLT_EXCEPTION_MESSAGE) String message,
                @Header(KafkaHeaders.DLT_EXCEPTION_STACKTRACE) String stacktrace,
                @Header(KafkaHeaders.DELIVERY_ATTEMPT) int attempt) {
            var seen = new LinkedHashMap<String, Object>();
            seen.put("key", text(record.key()));
            seen.put("value", text(record.value()));
            seen.put("topic", topic);
            seen.put("partition", partition);
            seen.put("offset", offset);
            seen.put("timestamp", timestamp);
            seen.put("timestamp_type", timestampType);
            seen.put("group", group);
            seen.put("exception", exception);
            seen.put("cause", cause);
            seen.put("message", message);
            seen.put("stacktrace", stacktrace);
            seen.put("attempt", attempt);
            System.out.println(json.writeValueAsString(seen));
            letters.countDown();
        }

        private static String text(byte[] bytes) {
            return bytes == null ? null : new String(bytes, StandardCharsets.UTF_8);
        }
    }

    /**
     * Fails at each of so many records of a topic until Spring's error handler makes letters of them. A key of
     * "unreadable" fails before that: its deserializer refuses it.
     */
    private static void recover(String bootstrap, String topic, String dlt, String group, int count) throws Exception {
        var producer = Map.<String, Object>of(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        var producers =
                new DefaultKafkaProducerFactory<>(producer, new ByteArraySerializer(), new ByteArraySerializer());
        var recoverer = new DeadLetterPublishingRecoverer(
                new KafkaTemplate<>(producers), (record, exception) -> new TopicPartition(dlt, record.partition()));
        var attempts = 3;
        var handler = new DefaultErrorHandler(recoverer, new FixedBackOff(0, attempts - 1));
        var letters = new CountDownLatch(count);
        handler.setRetryListeners(new RetryListener() {
            @Override
            public void failedDelivery(ConsumerRecord<?, ?> record, Exception exception, int attempt) {}

            @Override
            public void recovered(ConsumerRecord<?, ?> record, Exception exception) {
                letters.countDown();
            }
        });
        var properties = new ContainerProperties(topic);
        properties.setDeliveryAttemptHeader(true);
        properties.setMessageListener((MessageListener<byte[], byte[]>) record -> {
            throw new IllegalStateException("order refused", new NoSuchElementException("no such customer"));
        });
        var container = new ConcurrentMessageListenerContainer<>(consumers(bootstrap, group), properties);
        container.setCommonErrorHandler(handler);
        container.start();
        try {
            await(letters);
        } finally {
            container.stop();
            producers.destroy();
        }
    }

    private static DefaultKafkaConsumerFactory<byte[], byte[]> consumers(String bootstrap, String group) {
        var settings = new HashMap<String, Object>();
        settings.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, bootstrap);
        settings.put(ConsumerConfig.GROUP_ID_CONFIG, group);
        settings.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        settings.put(ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed");
        // Each attempt is a seek, and the fetch that it makes useless is waited for.
        settings.put(ConsumerConfig.FETCH_MAX_WAIT_MS_CONFIG, 20);
        Deserializer<byte[]> keys = (topic, key) -> {
            if (key != null && new String(key, StandardCharsets.UTF_8).equals("unreadable")) {
                throw new SerializationException("no such key");
            }
            return key;
        };
        return new DefaultKafkaConsumerFactory<>(
                settings, new ErrorHandlingDeserializer<>(keys), new ByteArrayDeserializer());
    }

    private static void await(CountDownLatch letters) throws InterruptedException {
        if (!letters.await(DEADLINE_SECONDS, TimeUnit.SECONDS)) {
            throw new IllegalStateException(letters.getCount() + " letters did not come");
        }
    }
}
