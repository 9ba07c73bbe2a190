//! What follows an instruction: lengths, numbers, texts.

use super::machine::Machine;
use super::{PLAIN, Value};

impl<'a> Machine<'a> {
    pub(super) fn bytes(&mut self, length: usize) -> Result<&'a [u8], String> {
        let rest = &self.program[self.at..];
        let taken = rest.get(..length).ok_or("it ends early")?;
        self.at += length;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.bytes(N)?;
        Ok(bytes.try_into().expect("as many bytes as asked for"))
    }

    /// A length of `N` little-endian bytes.
    pub(super) fn length<const N: usize>(&mut self) -> Result<usize, String> {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(self.bytes(N)?);
        usize::try_from(u64::from_le_bytes(wide)).map_err(|_| "it ends early".into())
    }

    pub(super) fn line(&mut self) -> Result<&'a str, String> {
        let rest = &self.program[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n');
        let line = &rest[..end.ok_or("it ends early")?];
        self.at += line.len() + 1;
        std::str::from_utf8(line).map_err(|_| "a Python name that is no text".into())
    }

    pub(super) fn text<const N: usize>(&mut self) -> Result<(), String> {
        let length = self.length::<N>()?;
        let bytes = self.bytes(length)?;
        // Python may write lone surrogates, which no weight is called.
        match std::str::from_utf8(bytes) {
            Ok(text) => self.push(Value::Text(text)),
            Err(_) => self.push_id(PLAIN),
        }
    }

    /// A value of `length` bytes that holds no weights.
    pub(super) fn plain(&mut self, length: usize) -> Result<(), String> {
        self.bytes(length)?;
        self.push_id(PLAIN)
    }

    pub(super) fn long(&mut self, length: usize) -> Result<(), String> {
        let bytes = self.bytes(length)?;
        if length > 8 {
            return self.push_id(PLAIN);
        }
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        wide[..length].copy_from_slice(bytes);
        self.push(Value::Int(i64::from_le_bytes(wide)))
    }
}
