import java.io.IOException;
import java.net.URI;
import java.net.URLDecoder;
import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.security.GeneralSecurityException;
import java.security.MessageDigest;
import java.time.Instant;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.Base64;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;
import javax.security.auth.callback.Callback;
import javax.security.auth.callback.UnsupportedCallbackException;
import javax.security.auth.login.AppConfigurationEntry;
import org.apache.kafka.common.security.auth.AuthenticateCallbackHandler;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerExtensionsValidatorCallback;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerToken;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallback;

/**
 * Does what brokers of Amazon MSK do with a token: computes the signature of the presigned request anew
 * (Signature Version 4) and compares. The secrets of the access keys come from the system property
 * pawl.test.keys, as KEY:SECRET,KEY:SECRET; each token that is taken is noted in the file pawl.test.accepted.
 */
public class MskIamValidator implements AuthenticateCallbackHandler {
    private static final DateTimeFormatter TIME =
            DateTimeFormatter.ofPattern("yyyyMMdd'T'HHmmss'Z'").withZone(ZoneOffset.UTC);

    private final Map<String, String> secrets = new HashMap<>();

    @Override
    public void configure(Map<String, ?> configs, String mechanism, List<AppConfigurationEntry> entries) {
        for (String pair : System.getProperty("pawl.test.keys").split(",")) {
            String[] parts = pair.split(":");
            secrets.put(parts[0], parts[1]);
        }
    }

    @Override
    public void close() {}

    @Override
    public void handle(Callback[] callbacks) throws IOException, UnsupportedCallbackException {
        for (Callback callback : callbacks) {
            if (callback instanceof OAuthBearerValidatorCallback validator) {
                try {
                    Token token = validate(validator.tokenValue());
                    Files.writeString(
                            Path.of(System.getProperty("pawl.test.accepted")),
                            token.principalName() + "\n",
                            StandardOpenOption.CREATE,
                            StandardOpenOption.APPEND);
                    validator.token(token);
                } catch (GeneralSecurityException | RuntimeException error) {
                    System.err.println("refused: " + error);
                    validator.error("invalid_token", null, null);
                }
            } else if (callback instanceof OAuthBearerExtensionsValidatorCallback extensions) {
                extensions.inputExtensions().map().keySet().forEach(extensions::valid);
            } else {
                throw new UnsupportedCallbackException(callback);
            }
        }
    }

    private Token validate(String value) throws GeneralSecurityException {
        URI url = URI.create(new String(Base64.getUrlDecoder().decode(value), StandardCharsets.UTF_8));
        TreeMap<String, String> query = new TreeMap<>();
        for (String pair : url.getRawQuery().split("&")) {
            String[] parts = pair.split("=", 2);
            query.put(
                    URLDecoder.decode(parts[0], StandardCharsets.UTF_8),
                    URLDecoder.decode(parts[1], StandardCharsets.UTF_8));
        }
        String signature = query.remove("X-Amz-Signature");
        query.remove("User-Agent");
        // KEY/DATE/REGION/SERVICE/aws4_request
        String[] scope = query.get("X-Amz-Credential").split("/");
        String secret = secrets.get(scope[0]);
        Instant from = Instant.from(TIME.parse(query.get("X-Amz-Date")));
        long seconds = Long.parseLong(query.get("X-Amz-Expires"));
        Instant until = from.plusSeconds(seconds);
        demand(secret != null, "the access key is not known: " + scope[0]);
        demand("kafka-cluster:Connect".equals(query.get("Action")), "another action");
        demand("kafka-cluster".equals(scope[3]), "another service");
        demand(url.getHost().equals("kafka." + scope[2] + ".amazonaws.com"), "another host");
        demand(seconds <= 900 && Instant.now().isBefore(until), "it has ended");
        demand("host".equals(query.get("X-Amz-SignedHeaders")), "other headers are signed");

        StringBuilder canonical = new StringBuilder("GET\n/\n");
        query.forEach((name, text) -> canonical.append(encoded(name)).append('=').append(encoded(text)).append('&'));
        canonical.setCharAt(canonical.length() - 1, '\n');
        canonical.append("host:").append(url.getHost()).append("\n\nhost\n").append(sha256(""));
        String toSign = String.join(
                "\n",
                "AWS4-HMAC-SHA256",
                query.get("X-Amz-Date"),
                String.join("/", List.of(scope).subList(1, scope.length)),
                sha256(canonical.toString()));
        byte[] key = ("AWS4" + secret).getBytes(StandardCharsets.UTF_8);
        for (String part : List.of(scope).subList(1, scope.length)) {
            key = hmac(key, part);
        }
        String expected = HexFormat.of().formatHex(hmac(key, toSign));
        demand(expected.equals(signature), "the signature is not that of the access key " + scope[0]);
        return new Token(value, scope[0], from.toEpochMilli(), until.toEpochMilli());
    }

    private static void demand(boolean holds, String otherwise) throws GeneralSecurityException {
        if (!holds) {
            throw new GeneralSecurityException(otherwise);
        }
    }

    private static String encoded(String text) {
        return URLEncoder.encode(text, StandardCharsets.UTF_8)
                .replace("+", "%20")
                .replace("*", "%2A")
                .replace("%7E", "~");
    }

    private static String sha256(String text) throws GeneralSecurityException {
        MessageDigest digest = MessageDigest.getInstance("SHA-256");
        return HexFormat.of().formatHex(digest.digest(text.getBytes(StandardCharsets.UTF_8)));
    }

    private static byte[] hmac(byte[] key, String text) throws GeneralSecurityException {
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(key, "HmacSHA256"));
        return mac.doFinal(text.getBytes(StandardCharsets.UTF_8));
    }

    private record Token(String value, String principalName, long from, long until) implements OAuthBearerToken {
        @Override
        public Set<String> scope() {
            return Set.of();
        }

        @Override
        public long lifetimeMs() {
            return until;
        }

        @Override
        public Long startTimeMs() {
            return from;
        }
    }
}
