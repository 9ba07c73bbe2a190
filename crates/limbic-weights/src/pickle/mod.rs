//! Reads the part of Python's pickle language in which `torch.save` describes tensors. It builds plain values on a
//! stack and calls nothing; names outside [`Global`] are errors.
//!
//! Values live in one list and refer to each other by number, so that a crafted file can neither nest deeply nor
//! form cycles that are followed; limits on the list, the stack and the steps keep memory and time small.

mod calls;
mod globals;
mod machine;
mod reading;
mod stack;

use self::globals::Global;
use self::machine::Machine;
use crate::stored::StoredDtype;

const MOST_STEPS: usize = 16 << 20;

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
    let mut machine = Machine::new(program);
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
