//! Reads the part of Python's pickle language in which `torch.save` describes tensors. It builds plain values on a
//! stack and calls nothing; names outside [`Global`] are errors.
//!
//! Values live in one list and refer to each other by number, so that a crafted file can neither nest deeply nor
//! form cycles that are followed; limits on the list, the stack and the steps keep memory and time small.

use std::collections::HashMap;

use crate::globals::Global;
use crate::header::MOST_DIMENSIONS;
use crate::stored::StoredDtype;

const MOST_STEPS: usize = 16 << 20;
const MOST_VALUES: usize = 2 << 20;
const MOST_STACKED: usize = 2 << 20;
const MOST_TENSORS: usize = 1 << 18;

/// The number of a value.
pub(crate) type Id = u32;

/// A value of a pickle.
#[derive(Debug, Clone)]
pub(crate) enum Value<'a> {
    /// Something that holds no weights: a float, a flag, bytes, an object of an inert class.
    Plain,
    Int(i64),
    Text(&'a str),
    /// A tuple, a list or a set.
    Sequence(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Global(Global),
    Storage(Storage<'a>),
    Tensor(Box<Pickled<'a>>),
}

/// Values that lie in an entry of their own, which several tensors may share.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Storage<'a> {
    /// Name of the entry below `data/`.
    pub(crate) key: &'a str,
    /// Absent where the tensor says it.
    pub(crate) dtype: Option<StoredDtype>,
    /// Number of values, or of bytes where there is no dtype.
    pub(crate) count: u64,
}

/// A tensor as a pickle describes it: nothing in it has been compared with its storage.
#[derive(Debug, Clone)]
pub(crate) struct Pickled<'a> {
    pub(crate) storage: Storage<'a>,
    pub(crate) dtype: StoredDtype,
    /// All three in values.
    pub(crate) offset: u64,
    pub(crate) shape: Vec<u64>,
    pub(crate) strides: Vec<u64>,
}

/// All values of a pickle, and which of them it stands for.
#[derive(Debug)]
pub(crate) struct Pickle<'a> {
    pub(crate) values: Vec<Value<'a>>,
    pub(crate) root: Id,
}

/// The number of the one [`Value::Plain`].
const PLAIN: Id = 0;

/// Reads a pickle of protocol 2 to 5.
pub(crate) fn read_pickle(program: &[u8]) -> Result<Pickle<'_>, String> {
    if !matches!(program, [0x80, 2..=5, ..]) {
        return Err("its pickle is not of protocol 2 to 5".into());
    }
    let mut machine = Machine {
        program,
        at: 0,
        values: vec![Value::Plain],
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        tensors: 0,
    };
    for _ in 0..MOST_STEPS {
        let before = machine.at;
        let root = machine
            .step()
            .map_err(|problem| format!("at byte {before} of its pickle: {problem}"))?;
        if let Some(root) = root {
            return Ok(Pickle {
                values: machine.values,
                root,
            });
        }
    }
    Err(format!("its pickle takes more than {MOST_STEPS} steps"))
}

struct Machine<'a> {
    program: &'a [u8],
    at: usize,
    values: Vec<Value<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    tensors: usize,
}

impl<'a> Machine<'a> {
    /// One instruction; the last gives the result.
    fn step(&mut self) -> Result<Option<Id>, String> {
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

    /// What a call of `callee` stands for.
    fn make(&self, callee: Id, arguments: Id) -> Result<Value<'a>, String> {
        let Value::Global(global) = *self.value(callee) else {
            return Err(format!(
                "a call of {}, which is no name; nothing was executed",
                kind(self.value(callee))
            ));
        };
        let arguments = self.items(arguments).unwrap_or_default();
        Ok(match global {
            Global::Tensor | Global::TypedTensor => self.tensor(global, arguments)?,
            Global::FromType => {
                let inner = match arguments {
                    [function, _, inner, ..] => (self.value(*function), self.items(*inner)),
                    _ => return Err("a tensor without its arguments".into()),
                };
                let (Value::Global(global @ (Global::Tensor | Global::TypedTensor)), Some(inner)) =
                    inner
                else {
                    return Err("a tensor that is made of something else".into());
                };
                self.tensor(*global, inner)?
            }
            Global::Parameter => match arguments.first().map(|data| self.value(*data)) {
                Some(Value::Tensor(tensor)) => Value::Tensor(tensor.clone()),
                _ => return Err("a parameter without a tensor".into()),
            },
            // Python 3 gives entries one by one; a list of pairs here could be copied without end.
            Global::Dict => match arguments.first().and_then(|list| self.items(*list)) {
                None | Some([]) => Value::Dict(Vec::new()),
                Some(_) => return Err("a dictionary made from a list".into()),
            },
            Global::Size => match arguments.first().and_then(|list| self.items(*list)) {
                Some(sizes) if sizes.len() <= MOST_DIMENSIONS => Value::Sequence(sizes.to_vec()),
                _ => return Err("a size that is no short list".into()),
            },
            Global::Inert => Value::Plain,
            Global::Storage(_) | Global::Dtype(_) => {
                return Err(format!("a call of {global:?}; nothing was executed"));
            }
        })
    }

    fn tensor(&self, global: Global, arguments: &[Id]) -> Result<Value<'a>, String> {
        let [storage, offset, shape, strides, ..] = arguments else {
            return Err(format!("a tensor of {} arguments", arguments.len()));
        };
        let Value::Storage(storage) = *self.value(*storage) else {
            return Err("a tensor without a storage".into());
        };
        let dtype = match global {
            Global::TypedTensor => match arguments.get(6).map(|dtype| self.value(*dtype)) {
                Some(Value::Global(Global::Dtype(dtype))) => *dtype,
                _ => return Err("a tensor without a dtype".into()),
            },
            _ => storage.dtype.ok_or("a tensor without a dtype")?,
        };
        let sizes = |id: Id| -> Result<Vec<u64>, String> {
            let items = self.items(id).ok_or("a tensor's shape that is no list")?;
            if items.len() > MOST_DIMENSIONS {
                return Err(format!("a tensor of {} dimensions", items.len()));
            }
            items.iter().map(|item| self.whole(*item)).collect()
        };
        let (shape, strides) = (sizes(*shape)?, sizes(*strides)?);
        if shape.len() != strides.len() {
            return Err("a tensor whose shape and strides differ in length".into());
        }
        Ok(Value::Tensor(Box::new(Pickled {
            storage,
            dtype,
            offset: self.whole(*offset)?,
            shape,
            strides,
        })))
    }

    /// `('storage', class, key, device, count)`, the only thing that torch keeps outside the pickle.
    fn storage(&self, id: Id) -> Result<Storage<'a>, String> {
        let values = self.items(id).unwrap_or_default();
        let [word, class, key, _, count] = values else {
            return Err("a storage that is not described by five values".into());
        };
        match (self.text_of(*word), self.value(*class), self.text_of(*key)) {
            (Some("storage"), Value::Global(Global::Storage(dtype)), Some(key)) => Ok(Storage {
                key,
                dtype: *dtype,
                count: self.whole(*count)?,
            }),
            _ => Err("a storage that is not described as torch does".into()),
        }
    }

    fn global(&mut self, module: &str, name: &str) -> Result<(), String> {
        let Some(global) = Global::named(module, name) else {
            return Err(format!(
                "it asks for the Python name `{}`, which weights have no need of; nothing was executed. Where you \
                 trust the file, save its tensors alone: `torch.save(model.state_dict(), path)`",
                clipped(&format!("{module}.{name}"))
            ));
        };
        self.push(Value::Global(global))
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

    fn push(&mut self, value: Value<'a>) -> Result<(), String> {
        if let Value::Plain = value {
            return self.push_id(PLAIN);
        }
        if self.values.len() >= MOST_VALUES {
            return Err(format!("more than {MOST_VALUES} values"));
        }
        self.tensors += usize::from(matches!(value, Value::Tensor(_)));
        if self.tensors > MOST_TENSORS {
            return Err(format!("more than {MOST_TENSORS} tensors"));
        }
        self.values.push(value);
        self.push_id((self.values.len() - 1) as Id)
    }

    fn push_id(&mut self, id: Id) -> Result<(), String> {
        self.stack.push(id);
        self.check_height()
    }

    fn check_height(&self) -> Result<(), String> {
        if self.stack.len() + self.marks.len() > MOST_STACKED {
            return Err(format!("a stack of more than {MOST_STACKED} values"));
        }
        Ok(())
    }

    fn pop(&mut self) -> Result<Id, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err("a value is missing on the stack".into());
        }
        Ok(self.stack.pop().expect("longer than the floor"))
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or("a mark is missing on the stack")?;
        Ok(self.stack.split_off(mark))
    }

    fn top(&self) -> Result<Id, String> {
        let top = self.stack.last().copied();
        top.ok_or_else(|| "a value is missing on the stack".into())
    }

    fn top_value(&mut self) -> Result<&mut Value<'a>, String> {
        let top = self.top()?;
        Ok(&mut self.values[top as usize])
    }

    fn value(&self, id: Id) -> &Value<'a> {
        &self.values[id as usize]
    }

    fn items(&self, id: Id) -> Option<&[Id]> {
        match self.value(id) {
            Value::Sequence(items) => Some(items),
            _ => None,
        }
    }

    fn text_of(&self, id: Id) -> Option<&'a str> {
        match self.value(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    fn whole(&self, id: Id) -> Result<u64, String> {
        match self.value(id) {
            Value::Int(value) => u64::try_from(*value).map_err(|_| format!("the size {value}")),
            other => Err(format!("{} where a size belongs", kind(other))),
        }
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8], String> {
        let rest = &self.program[self.at..];
        let taken = rest.get(..length).ok_or("it ends early")?;
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let bytes = self.bytes(N)?;
        Ok(bytes.try_into().expect("as many bytes as asked for"))
    }

    /// A length of `N` little-endian bytes.
    fn length<const N: usize>(&mut self) -> Result<usize, String> {
        let mut wide = [0; 8];
        wide[..N].copy_from_slice(self.bytes(N)?);
        usize::try_from(u64::from_le_bytes(wide)).map_err(|_| "it ends early".into())
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let rest = &self.program[self.at..];
        let end = rest.iter().position(|byte| *byte == b'\n');
        let line = &rest[..end.ok_or("it ends early")?];
        self.at += line.len() + 1;
        std::str::from_utf8(line).map_err(|_| "a Python name that is no text".into())
    }

    fn text<const N: usize>(&mut self) -> Result<(), String> {
        let length = self.length::<N>()?;
        let bytes = self.bytes(length)?;
        // Python may write lone surrogates, which no weight is called.
        match std::str::from_utf8(bytes) {
            Ok(text) => self.push(Value::Text(text)),
            Err(_) => self.push_id(PLAIN),
        }
    }

    /// A value of `length` bytes that holds no weights.
    fn plain(&mut self, length: usize) -> Result<(), String> {
        self.bytes(length)?;
        self.push_id(PLAIN)
    }

    fn long(&mut self, length: usize) -> Result<(), String> {
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

fn pairs(items: &[Id]) -> Result<Vec<(Id, Id)>, String> {
    let (pairs, rest) = items.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("a key without a value".into());
    }
    Ok(pairs.iter().map(|[key, value]| (*key, *value)).collect())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Plain => "a plain value",
        Value::Int(_) => "a whole number",
        Value::Text(_) => "a text",
        Value::Sequence(_) => "a list",
        Value::Dict(_) => "a dictionary",
        Value::Global(_) => "a Python name",
        Value::Storage(_) => "a storage",
        Value::Tensor(_) => "a tensor",
    }
}

/// A name from a file, short enough for a message.
pub(crate) fn clipped(name: &str) -> String {
    const LONGEST: usize = 200;
    match name.char_indices().nth(LONGEST) {
        None => name.to_string(),
        Some((at, _)) => format!("{}...", &name[..at]),
    }
}
