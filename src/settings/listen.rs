//! The address of the process's own endpoint, or "off", for `#[serde(with = "listen")]`.

use std::net::SocketAddr;

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Error};
use serde::ser::Serializer;

/// The title by which the schema marks an address, so that the reader of the file knows the form.
pub(super) const TITLE: &str = "address to listen on";

const OFF: &str = "off";

pub(super) fn parse(text: &str) -> Result<Option<SocketAddr>, String> {
    match text {
        OFF => Ok(None),
        _ => text.parse().map(Some).map_err(|_| "not an IP address with a port".to_owned()),
    }
}

pub(super) fn serialize<S: Serializer>(listen: &Option<SocketAddr>, to: S) -> Result<S::Ok, S::Error> {
    match listen {
        Some(address) => to.collect_str(address),
        None => to.serialize_str(OFF),
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
    parse(&String::deserialize(from)?).map_err(D::Error::custom)
}

pub(super) fn schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "title": TITLE,
        "type": "string",
        "pattern": "^(off|.+:[0-9]{1,5})$",
        "examples": ["127.0.0.1:9464", "0.0.0.0:9464", "[::1]:9464", OFF],
    })
}
