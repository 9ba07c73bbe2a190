//! The directory of a zip archive whose entries are stored as they are, which is what `torch.save` writes.
//!
//! Compressed entries are refused, so nothing in an archive can be larger than the archive.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::WeightsError;
use crate::source::{Access, SourceFile};

const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const END_64_LOCATOR: &[u8] = b"PK\x06\x07";
const IN_DIRECTORY: &[u8] = b"PK\x01\x02";
const BEFORE_DATA: &[u8] = b"PK\x03\x04";

const LONGEST_DIRECTORY: u64 = 16 << 20;
const MOST_ENTRIES: usize = 100_000;

/// What is wrong with an archive: its own damage, or the disk's.
pub(crate) enum ZipError {
    Damaged(String),
    Unread(WeightsError),
}

impl From<WeightsError> for ZipError {
    fn from(error: WeightsError) -> Self {
        Self::Unread(error)
    }
}

fn damaged<T>(detail: impl Into<String>) -> Result<T, ZipError> {
    Err(ZipError::Damaged(detail.into()))
}

/// The bytes of each entry, by name.
pub(crate) fn read_directory(file: &SourceFile) -> Result<BTreeMap<String, Range<u64>>, ZipError> {
    let directory = find_directory(file)?;
    let bytes = file.window(directory.clone(), Access::Whole)?;
    let mut entries = BTreeMap::new();
    let mut places = Vec::new();
    let mut rest = Fields(&bytes);
    while !rest.0.is_empty() {
        let Some(listed) = Listed::read(&mut rest) else {
            return damaged("its directory is cut off or of another kind");
        };
        if entries.len() == MOST_ENTRIES {
            return damaged(format!("it has more than {MOST_ENTRIES} entries"));
        }
        let name = listed.name.clone();
        let data = listed.locate(file, directory.start)?;
        places.push((listed.header, data.end, name.clone()));
        if entries.insert(name.clone(), data).is_some() {
            return damaged(format!("`{name}` appears twice"));
        }
    }
    places.sort();
    for pair in places.windows(2) {
        if pair[1].0 < pair[0].1 {
            return damaged(format!("`{}` and `{}` overlap", pair[0].2, pair[1].2));
        }
    }
    Ok(entries)
}

/// Where the directory lies, from the record at the end of the archive.
fn find_directory(file: &SourceFile) -> Result<Range<u64>, ZipError> {
    const RECORD: usize = 22;
    const LOCATOR: u64 = 20;
    const RECORD_64: u64 = 56;
    let tail_start = file.length().saturating_sub(RECORD as u64 + 65_535);
    let tail = file.window(tail_start..file.length(), Access::Whole)?;
    // A comment of the stated length must follow to the file's end, or the mark is only part of one.
    let found = (0..=tail.len().saturating_sub(RECORD)).rev().find(|at| {
        tail[*at..].starts_with(END)
            && Fields(&tail[at + 20..]).u16().map(usize::from) == Some(tail.len() - at - RECORD)
    });
    let Some(at) = found else {
        return damaged("it has no zip directory at its end; it was cut off, fetch it again");
    };
    let end = tail_start + at as u64;
    let mut fields = Fields(&tail[at + 12..]);
    let (size, start) = (fields.u32(), fields.u32());
    let (Some(mut size), Some(mut start)) = (size.map(u64::from), start.map(u64::from)) else {
        return damaged("its zip directory is cut off");
    };
    if size == u64::from(u32::MAX) || start == u64::from(u32::MAX) {
        let locator = file.window(end.saturating_sub(LOCATOR)..end, Access::Whole)?;
        let mut fields = Fields(&locator);
        let record = fields.expect(END_64_LOCATOR).and_then(|()| {
            fields.skip(4)?;
            fields.u64()
        });
        let Some(record) = record.filter(|at| at.saturating_add(RECORD_64) <= end) else {
            return damaged("its zip64 directory is not where it says");
        };
        let bytes = file.window(record..record + RECORD_64, Access::Whole)?;
        let mut fields = Fields(&bytes);
        let place = fields.expect(END_64).and_then(|()| {
            fields.skip(36)?;
            Some((fields.u64()?, fields.u64()?))
        });
        let Some(place) = place else {
            return damaged("its zip64 directory is not where it says");
        };
        (size, start) = place;
    }
    match start.checked_add(size) {
        Some(stop) if stop <= end && size <= LONGEST_DIRECTORY => Ok(start..stop),
        _ => damaged(format!(
            "its zip directory would have {size} bytes from {start} on"
        )),
    }
}

/// An entry as the directory lists it.
struct Listed {
    name: String,
    flags: u16,
    method: u16,
    packed: u64,
    size: u64,
    /// Where the entry's own header lies.
    header: u64,
}

impl Listed {
    fn read(fields: &mut Fields) -> Option<Self> {
        fields.expect(IN_DIRECTORY)?;
        fields.skip(4)?;
        let (flags, method) = (fields.u16()?, fields.u16()?);
        fields.skip(8)?;
        let (packed, size) = (fields.u32()?, fields.u32()?);
        let (name, extra, comment) = (fields.u16()?, fields.u16()?, fields.u16()?);
        fields.skip(8)?;
        let header = fields.u32()?;
        let name = std::str::from_utf8(fields.take(name.into())?).ok()?;
        let mut extra = Fields(fields.take(extra.into())?);
        fields.skip(comment.into())?;
        let mut large = [size, packed, header].map(u64::from);
        while let (Some(kind), Some(length)) = (extra.u16(), extra.u16()) {
            let mut field = Fields(extra.take(length.into())?);
            if kind == 1 {
                // The zip64 field holds, in this order, the values that did not fit.
                for value in &mut large {
                    if *value == u64::from(u32::MAX) {
                        *value = field.u64()?;
                    }
                }
            }
        }
        let [size, packed, header] = large;
        Some(Self {
            name: name.to_string(),
            flags,
            method,
            packed,
            size,
            header,
        })
    }

    /// The entry's bytes, after its own header was compared with the directory.
    fn locate(&self, file: &SourceFile, directory: u64) -> Result<Range<u64>, ZipError> {
        const HEADER: u64 = 30;
        let name = &self.name;
        if self.flags & 1 != 0 {
            return damaged(format!("`{name}` is encrypted"));
        }
        if self.method != 0 || self.packed != self.size {
            return damaged(format!(
                "`{name}` is compressed, and `torch.save` compresses nothing; write it again with `torch.save`"
            ));
        }
        let lies = || {
            damaged(format!(
                "`{name}` is not where the directory says, or not of that size"
            ))
        };
        let Some(behind) = self
            .header
            .checked_add(HEADER + name.len() as u64)
            .filter(|behind| *behind <= directory)
        else {
            return lies();
        };
        let bytes = file.window(self.header..behind, Access::Whole)?;
        let mut fields = Fields(&bytes);
        let own = fields.expect(BEFORE_DATA).and_then(|()| {
            fields.skip(4)?;
            let method = fields.u16()?;
            fields.skip(8)?;
            let (packed, size) = (fields.u32()?, fields.u32()?);
            let (length, extra) = (fields.u16()?, fields.u16()?);
            Some((method, packed, size, length, extra, fields.0))
        });
        let Some((method, packed, size, length, extra, own_name)) = own else {
            return lies();
        };
        // Sizes may stand behind the data instead, or in a zip64 field.
        let agrees = |own: u32| own == 0 || own == u32::MAX || u64::from(own) == self.size;
        let same_name = usize::from(length) == name.len() && own_name == name.as_bytes();
        if method != 0 || !agrees(packed) || !agrees(size) || !same_name {
            return lies();
        }
        let start = behind + u64::from(extra);
        match start.checked_add(self.size) {
            Some(end) if end <= directory => Ok(start..end),
            _ => lies(),
        }
    }
}

/// Little-endian fields, one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn skip(&mut self, length: usize) -> Option<()> {
        self.take(length).map(|_| ())
    }

    fn expect(&mut self, mark: &[u8]) -> Option<()> {
        (self.take(mark.len())? == mark).then_some(())
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_le_bytes(self.take(2)?.try_into().ok()?))
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }
}
