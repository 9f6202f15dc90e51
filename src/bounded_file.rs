//! Files that a setting names, read up to a bound.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// All of a file that has at most so many bytes, a whole number of KiB.
///
/// # Errors
/// It cannot be read, or is larger: then of the kind [`io::ErrorKind::FileTooLarge`].
pub fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 <= most {
        return Ok(bytes);
    }
    let bound = if most.is_multiple_of(1 << 20) {
        format!("{} MiB", most >> 20)
    } else {
        format!("{} KiB", most >> 10)
    };
    Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {bound}")))
}
