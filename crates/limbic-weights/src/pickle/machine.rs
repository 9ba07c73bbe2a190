//! The instructions.

use std::collections::HashMap;

use super::stack::MOST_VALUES;
use super::{Id, PLAIN, Value, kind};

/// A stack machine that makes values and runs nothing.
pub(super) struct Machine<'a> {
    pub(super) program: &'a [u8],
    pub(super) at: usize,
    pub(super) values: Vec<Value<'a>>,
    pub(super) stack: Vec<Id>,
    /// Heights of the stack.
    pub(super) marks: Vec<usize>,
    pub(super) memo: HashMap<u32, Id>,
    pub(super) tensors: usize,
}

impl<'a> Machine<'a> {
    pub(super) fn new(program: &'a [u8]) -> Self {
        Self {
            program,
            at: 0,
            values: vec![Value::Plain],
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            tensors: 0,
        }
    }

    /// One instruction; the last gives the result.
    pub(super) fn step(&mut self) -> Result<Option<Id>, String> {
        match self.bytes(1)?[0] {
            b'\x80' => {
                self.bytes(1)?;
            }
            // The length of a frame helps buffered readers only.
            b'\x95' => {
                self.bytes(8)?;
            }
            b'.' => return self.pop().map(Some),
            b'(' => {
                self.marks.push(self.stack.len());
                self.check_height()?;
            }
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.pop_mark()?;
            }
            b'2' => {
                let top = self.top()?;
                self.push_id(top)?;
            }

            b'N' | b'\x88' | b'\x89' => self.push_id(PLAIN)?,
            b'G' => self.plain(8)?,
            b'J' => {
                let value = i32::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()))?;
            }
            b'K' => {
                let value = self.bytes(1)?[0];
                self.push(Value::Int(value.into()))?;
            }
            b'M' => {
                let value = u16::from_le_bytes(self.array()?);
                self.push(Value::Int(value.into()))?;
            }
            b'\x8a' => {
                let length = self.length::<1>()?;
                self.long(length)?;
            }
            b'\x8b' => {
                let length = self.length::<4>()?;
                self.long(length)?;
            }

            b'X' => self.text::<4>()?,
            b'\x8c' => self.text::<1>()?,
            b'\x8d' => self.text::<8>()?,
            b'T' | b'B' => {
                let length = self.length::<4>()?;
                self.plain(length)?;
            }
            b'U' | b'C' => {
                let length = self.length::<1>()?;
                self.plain(length)?;
            }
            b'\x8e' | b'\x96' => {
                let length = self.length::<8>()?;
                self.plain(length)?;
            }

            b')' | b']' | b'\x8f' => self.push(Value::Sequence(Vec::new()))?,
            b'}' => self.push(Value::Dict(Vec::new()))?,
            b't' | b'l' | b'\x91' => {
                let items = self.pop_mark()?;
                self.push(Value::Sequence(items))?;
            }
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Value::Dict(pairs(&items)?))?;
            }
            count @ b'\x85'..=b'\x87' => {
                let mut items = Vec::new();
                for _ in 0..=(count - b'\x85') {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.push(Value::Sequence(items))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.extend(vec![item])?;
            }
            b'e' | b'\x90' => {
                let items = self.pop_mark()?;
                self.extend(items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(vec![key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set(items)?;
            }

            b'q' => {
                let slot = self.bytes(1)?[0];
                self.memorize(slot.into())?;
            }
            b'r' => {
                let slot = u32::from_le_bytes(self.array()?);
                self.memorize(slot)?;
            }
            b'\x94' => self.memorize(self.memo.len() as u32)?,
            b'h' => {
                let slot = self.bytes(1)?[0];
                self.recall(slot.into())?;
            }
            b'j' => {
                let slot = u32::from_le_bytes(self.array()?);
                self.recall(slot)?;
            }

            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.global(module, name)?;
            }
            b'\x93' => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.text_of(module), self.text_of(name)) {
                    (Some(module), Some(name)) => self.global(module, name)?,
                    _ => return Err("a Python name that is no text".into()),
                }
            }
            b'Q' => {
                let id = self.pop()?;
                let storage = self.storage(id)?;
                self.push(Value::Storage(storage))?;
            }
            b'R' | b'\x81' => {
                let (arguments, callee) = (self.pop()?, self.pop()?);
                let made = self.make(callee, arguments)?;
                self.push(made)?;
            }
            b'\x92' => {
                let (_, arguments, callee) = (self.pop()?, self.pop()?, self.pop()?);
                let made = self.make(callee, arguments)?;
                self.push(made)?;
            }
            // The attributes of an object: a state dict's `_metadata`, a namespace's settings.
            b'b' => {
                self.pop()?;
                match self.value(self.top()?) {
                    Value::Plain | Value::Dict(_) => {}
                    other => return Err(format!("attributes given to {}", kind(other))),
                }
            }
            other => {
                return Err(format!(
                    "instruction 0x{other:02x}, which `torch.save` does not write; nothing was executed"
                ));
            }
        }
        Ok(None)
    }

    fn set(&mut self, items: Vec<Id>) -> Result<(), String> {
        let entries = pairs(&items)?;
        match self.top_value()? {
            Value::Dict(dict) => dict.extend(entries),
            Value::Plain => {}
            other => return Err(format!("entries given to {}", kind(other))),
        }
        Ok(())
    }

    fn extend(&mut self, items: Vec<Id>) -> Result<(), String> {
        match self.top_value()? {
            Value::Sequence(list) => list.extend(items),
            Value::Plain => {}
            other => return Err(format!("items given to {}", kind(other))),
        }
        Ok(())
    }

    fn memorize(&mut self, slot: u32) -> Result<(), String> {
        let top = self.top()?;
        self.memo.insert(slot, top);
        if self.memo.len() > MOST_VALUES {
            return Err(format!("more than {MOST_VALUES} values remembered"));
        }
        Ok(())
    }

    fn recall(&mut self, slot: u32) -> Result<(), String> {
        let id = *self
            .memo
            .get(&slot)
            .ok_or_else(|| format!("value {slot} was never remembered"))?;
        self.push_id(id)
    }
}

fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>, String> {
    let (pairs, rest) = items.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("a key without a value".into());
    }
    Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
}
