//! Where Java's default partitioner places a key, and so `pawl publish` too.

use std::ptr;

use rdkafka_sys as sys;

/// The partition of a key among `partitions` of them, which must be at least 1.
pub fn java_partition(key: &[u8], partitions: i32) -> i32 {
    assert!(partitions > 0, "a topic has partitions");
    // SAFETY: the key is alive during the call; librdkafka's murmur2 partitioner looks at nothing
    // else, neither at the topic nor at the opaques.
    unsafe {
        sys::rd_kafka_msg_partitioner_murmur2(
            ptr::null(),
            key.as_ptr().cast(),
            key.len(),
            partitions,
            ptr::null_mut(),
            ptr::null_mut(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hashes of Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn keys_are_placed_as_kafkas_own_tests_expect() {
        let known: [(&str, i32); 5] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
        ];
        for (key, hash) in known {
            for partitions in [1, 3, 12] {
                let expected = (hash & 0x7fff_ffff) % partitions;
                assert_eq!(java_partition(key.as_bytes(), partitions), expected, "{key}");
            }
        }
    }
}
