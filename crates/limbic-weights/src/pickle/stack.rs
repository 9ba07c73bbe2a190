//! The stack, and the values it points to.

use super::machine::Machine;
use super::{Id, PLAIN, Value, kind};

pub(super) const MOST_VALUES: usize = 2 << 20;
const MOST_STACKED: usize = 2 << 20;
const MOST_TENSORS: usize = 1 << 18;

impl<'a> Machine<'a> {
    pub(super) fn push(&mut self, value: Value<'a>) -> Result<(), String> {
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

    pub(super) fn push_id(&mut self, id: Id) -> Result<(), String> {
        self.stack.push(id);
        self.check_height()
    }

    pub(super) fn check_height(&self) -> Result<(), String> {
        if self.stack.len() + self.marks.len() > MOST_STACKED {
            return Err(format!("a stack of more than {MOST_STACKED} values"));
        }
        Ok(())
    }

    pub(super) fn pop(&mut self) -> Result<Id, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        if self.stack.len() <= floor {
            return Err("a value is missing on the stack".into());
        }
        Ok(self.stack.pop().expect("longer than the floor"))
    }

    pub(super) fn pop_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().ok_or("a mark is missing on the stack")?;
        Ok(self.stack.split_off(mark))
    }

    pub(super) fn top(&self) -> Result<Id, String> {
        let top = self.stack.last().copied();
        top.ok_or_else(|| "a value is missing on the stack".into())
    }

    pub(super) fn top_value(&mut self) -> Result<&mut Value<'a>, String> {
        let top = self.top()?;
        Ok(&mut self.values[top as usize])
    }

    pub(super) fn value(&self, id: Id) -> &Value<'a> {
        &self.values[id as usize]
    }

    pub(super) fn items(&self, id: Id) -> Option<&[Id]> {
        match self.value(id) {
            Value::Sequence(items) => Some(items),
            _ => None,
        }
    }

    pub(super) fn text_of(&self, id: Id) -> Option<&'a str> {
        match self.value(id) {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn whole(&self, id: Id) -> Result<u64, String> {
        match self.value(id) {
            Value::Int(value) => u64::try_from(*value).map_err(|_| format!("the size {value}")),
            other => Err(format!("{} where a size belongs", kind(other))),
        }
    }
}
