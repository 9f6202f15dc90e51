//! Record headers with raw names, in and out.
//!
//! Kafka does not promise that a header's name is UTF-8, but rust-rdkafka 0.39 does: its
//! `Headers::try_get` panics on any other name, on the thread that polls. So headers are read and
//! built here through rdkafka-sys, and nowhere else in Pawl through `rdkafka::message::Headers`.
//!
//! Limit: librdkafka's reading interface gives a name as a C string, so a name is cut at its first
//! NUL byte (values are not). Nothing in Pawl can see the rest.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use bytes::Bytes;
use pawl_actors::record::Header;
use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Message, OwnedHeaders};
use rdkafka_sys as sys;

/// The headers of a message, in its order; `copy` makes names and values one's own.
pub fn read(message: &BorrowedMessage<'_>, copy: impl FnMut(&[u8]) -> Bytes) -> Vec<Header> {
    // Only a pointer is fetched here, no name is looked at.
    message.headers().map(|headers| read_all(headers, copy)).unwrap_or_default()
}

/// Headers for a record to write, in the given order.
pub fn write(headers: &[Header]) -> OwnedHeaders {
    let owned = OwnedHeaders::new_with_capacity(headers.len());
    for header in headers {
        add(&owned, header);
    }
    owned
}

fn read_all(headers: &BorrowedHeaders, mut copy: impl FnMut(&[u8]) -> Bytes) -> Vec<Header> {
    let native = native(headers);
    // SAFETY: `native` points to live headers: it comes from a reference.
    let count = unsafe { sys::rd_kafka_header_cnt(native) };
    (0..count).map(|index| read_one(headers, index, &mut copy)).collect()
}

fn read_one(headers: &BorrowedHeaders, index: usize, copy: &mut impl FnMut(&[u8]) -> Bytes) -> Header {
    let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0);
    // SAFETY: the headers are alive (a reference), the out parameters are valid for writing.
    let code =
        unsafe { sys::rd_kafka_header_get_all(native(headers), index, &mut name, &mut value, &mut size) };
    assert!(code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR, "the index is below the count");
    // SAFETY: on success `name` is NUL-terminated, and `value` is null or points to `size` bytes;
    // both live as long as the headers, which the reference keeps, and are copied here.
    unsafe {
        Header {
            name: copy(CStr::from_ptr(name).to_bytes()),
            value: (!value.is_null()).then(|| copy(std::slice::from_raw_parts(value.cast(), size))),
        }
    }
}

fn add(headers: &OwnedHeaders, header: &Header) {
    let (value, size) = match &header.value {
        Some(value) => (value.as_ptr().cast::<c_void>(), value.len()),
        None => (ptr::null(), 0),
    };
    // SAFETY: `headers` owns its native list, nobody else reads or writes it during this call (it
    // was made by `write` and has not left it), and librdkafka copies name and value.
    let code = unsafe {
        sys::rd_kafka_header_add(
            native(headers.as_borrowed()),
            header.name.as_ptr().cast::<c_char>(),
            header.name.len() as isize,
            value,
            size as isize,
        )
    };
    assert!(code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR, "own headers can be written");
}

/// rust-rdkafka's `&BorrowedHeaders` is the native pointer itself (a zero-sized type, cast from
/// `rd_kafka_headers_t *` and back in its message.rs); it has no public way to give it.
fn native(headers: &BorrowedHeaders) -> *mut sys::rd_kafka_headers_t {
    ptr::from_ref(headers).cast_mut().cast()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &'static [u8], value: Option<&'static [u8]>) -> Header {
        Header { name: Bytes::from_static(name), value: value.map(Bytes::from_static) }
    }

    fn round_trip(headers: Vec<Header>) {
        assert_eq!(read_all(write(&headers).as_borrowed(), Bytes::copy_from_slice), headers);
    }

    #[test]
    fn headers_come_back_as_they_were_built() {
        round_trip(Vec::new());
        round_trip(vec![header(b"ce_id", Some(b"e1")), header(b"ce_type", Some(b"place order"))]);
    }

    #[test]
    fn a_name_that_is_not_utf8_survives() {
        round_trip(vec![header(b"\xff\xfe name", Some(b"1")), header(b"caf\xc3", None)]);
    }

    #[test]
    fn null_and_empty_values_differ() {
        round_trip(vec![header(b"null", None), header(b"empty", Some(b""))]);
    }

    #[test]
    fn repeated_names_keep_their_order() {
        round_trip(vec![header(b"a", Some(b"1")), header(b"b", Some(b"2")), header(b"a", Some(b"3"))]);
    }

    #[test]
    fn values_are_bytes_not_text() {
        round_trip(vec![header(b"binary", Some(b"\0\x01\0\xff")), header(b"", Some(b"no name"))]);
    }

    #[test]
    fn a_name_ends_at_its_first_nul_byte() {
        let read = read_all(write(&[header(b"a\0b", Some(b"1"))]).as_borrowed(), Bytes::copy_from_slice);
        assert_eq!(read, vec![header(b"a", Some(b"1"))]);
    }
}
