//! What Python would call, and what it stands for here.

use super::globals::Global;
use super::machine::Machine;
use super::{Id, Pickled, Storage, Value, clipped, kind};
use crate::header::MOST_DIMENSIONS;

impl<'a> Machine<'a> {
    /// What a call of `callee` stands for.
    pub(super) fn make(&self, callee: Id, arguments: Id) -> Result<Value<'a>, String> {
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

    pub(super) fn tensor(&self, global: Global, arguments: &[Id]) -> Result<Value<'a>, String> {
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
    pub(super) fn storage(&self, id: Id) -> Result<Storage<'a>, String> {
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

    pub(super) fn global(&mut self, module: &str, name: &str) -> Result<(), String> {
        let Some(global) = Global::named(module, name) else {
            return Err(format!(
                "it asks for the Python name `{}`, which weights have no need of; nothing was executed. Where you \
                 trust the file, save its tensors alone: `torch.save(model.state_dict(), path)`",
                clipped(&format!("{module}.{name}"))
            ));
        };
        self.push(Value::Global(global))
    }
}
