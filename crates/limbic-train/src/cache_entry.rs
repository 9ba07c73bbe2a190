//! One file of the feature cache:
//!
//! ```text
//! "limbicFT"          8 bytes
//! length of header    u32, little-endian
//! header              JSON: version, key, dtype, shape, SHA-256 of the values
//! SHA-256             of all of the above, 64 hex digits
//! values              F32, little-endian, [length, dim]
//! ```
//!
//! A clip that has nothing of the medium has an entry too, without values. Everything is verified whenever it is read.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use limbic_encoders::Features;
use limbic_weights::hex_digest;
use serde::{Deserialize, Serialize};

use crate::loose_file::write_loose;

const MAGIC: &[u8; 8] = b"limbicFT";
const VERSION: u32 = 1;
const DIGEST: usize = 64;
const LONGEST_HEADER: usize = 4096;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Header {
    version: u32,
    key: String,
    dtype: String,
    /// Length and dim; `None` for a medium that the clip lacks.
    shape: Option<(usize, usize)>,
    values_sha256: String,
}

/// Why an entry is not used.
#[derive(Debug)]
pub(crate) enum Unread {
    /// There is none.
    Absent,
    /// The file system refuses to give it.
    Refused(io::Error),
    /// It is not what was written, or another version wrote it; in words.
    Damaged(String),
}

impl From<io::Error> for Unread {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Absent,
            io::ErrorKind::UnexpectedEof => Self::Damaged("it ends early".into()),
            _ => Self::Refused(error),
        }
    }
}

/// Writes `features` under `key`; the bytes written.
///
/// # Errors
/// When the file system refuses.
pub(crate) fn write(path: &Path, key: &str, features: Option<&Features>) -> io::Result<u64> {
    let values: Vec<u8> = features.map_or_else(Vec::new, |features| {
        let values = features.data.iter();
        values.flat_map(|value| value.to_le_bytes()).collect()
    });
    let header = serde_json::to_vec(&Header {
        version: VERSION,
        key: key.to_string(),
        dtype: "f32".into(),
        shape: features.map(|features| (features.length, features.dim)),
        values_sha256: hex_digest(&values),
    })?;
    let length = u32::try_from(header.len()).map_err(io::Error::other)?;
    let head = [MAGIC, length.to_le_bytes().as_slice(), &header].concat();
    let digest = hex_digest(&head);
    write_loose(path, &[&head, digest.as_bytes(), &values])?;
    Ok((head.len() + DIGEST + values.len()) as u64)
}

/// Number and size of the features under `key`; the values are not read.
///
/// # Errors
/// No entry, or a damaged one.
pub(crate) fn shape(path: &Path, key: &str) -> Result<Option<(usize, usize)>, Unread> {
    Ok(open(path, key)?.1.shape)
}

/// The features under `key`.
///
/// # Errors
/// No entry, or a damaged one.
pub(crate) fn read(path: &Path, key: &str) -> Result<Option<Features>, Unread> {
    let (mut file, header) = open(path, key)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    if hex_digest(&bytes) != header.values_sha256 {
        return Err(Unread::Damaged("its values are not those written".into()));
    }
    Ok(header.shape.map(|(length, dim)| Features {
        length,
        dim,
        data: bytes
            .chunks_exact(4)
            .map(|bytes| f32::from_le_bytes(bytes.try_into().expect("chunks of four bytes")))
            .collect(),
    }))
}

/// The file, from its values on, and its header.
fn open(path: &Path, key: &str) -> Result<(File, Header), Unread> {
    let damaged = |problem: &str| Err(Unread::Damaged(problem.into()));
    let mut file = File::open(path)?;
    let mut start = [0; 12];
    file.read_exact(&mut start)?;
    let (magic, length) = start.split_at(MAGIC.len());
    let length = u32::from_le_bytes(length.try_into().expect("the last four of twelve bytes"));
    let length = length as usize;
    if magic != MAGIC || length > LONGEST_HEADER {
        return damaged("it does not begin as an entry does");
    }
    let mut rest = vec![0; length + DIGEST];
    file.read_exact(&mut rest)?;
    let (json, digest) = rest.split_at(length);
    if hex_digest(&[&start, json].concat()).as_bytes() != digest {
        return damaged("its header is not the one written");
    }
    let Ok(header) = serde_json::from_slice::<Header>(json) else {
        return damaged("another version wrote it");
    };
    if header.version != VERSION || header.dtype != "f32" {
        return damaged("another version wrote it");
    }
    if header.key != key {
        return damaged("it is of another clip or encoder");
    }
    let values = header.shape.map_or(Some(0), |(length, dim)| {
        length.checked_mul(dim)?.checked_mul(4)
    });
    let size = values.and_then(|values| values.checked_add(start.len() + rest.len()));
    if size.map(|size| size as u64) != Some(file.metadata()?.len()) {
        return damaged("it is shorter or longer than its shape");
    }
    Ok((file, header))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features() -> Features {
        Features {
            length: 3,
            dim: 2,
            data: vec![0.1, -0.0, f32::MIN_POSITIVE, 4.0, 5.5, 1e30],
        }
    }

    #[test]
    fn what_is_written_is_read_to_the_bit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        assert!(matches!(read(&path, "k"), Err(Unread::Absent)));
        let size = write(&path, "k", Some(&features())).unwrap();
        assert_eq!(size, std::fs::metadata(&path).unwrap().len());
        let got = read(&path, "k").unwrap().unwrap();
        let bits = |features: &Features| -> Vec<u32> {
            features.data.iter().map(|value| value.to_bits()).collect()
        };
        assert_eq!(bits(&got), bits(&features()));
        assert_eq!(shape(&path, "k").unwrap(), Some((3, 2)));
        write(&path, "k", None).unwrap();
        assert_eq!(read(&path, "k").unwrap(), None);
        assert_eq!(shape(&path, "k").unwrap(), None);
    }

    #[test]
    fn any_flipped_byte_and_any_cut_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("entry");
        write(&path, "k", Some(&features())).unwrap();
        let whole = std::fs::read(&path).unwrap();
        let is_damaged = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            matches!(read(&path, "k"), Err(Unread::Damaged(_)))
        };
        assert!(!is_damaged(&whole));
        for place in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[place] ^= 1;
            assert!(is_damaged(&flipped), "byte {place}");
            assert!(is_damaged(&whole[..place]), "cut to {place}");
        }
        assert!(is_damaged(&[&whole[..], &[0]].concat()));
        std::fs::write(&path, &whole).unwrap();
        assert!(matches!(read(&path, "other"), Err(Unread::Damaged(_))));
        let below = path.join("below");
        assert!(matches!(read(&below, "k"), Err(Unread::Refused(_))));
    }
}
