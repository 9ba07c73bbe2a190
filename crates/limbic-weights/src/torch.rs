//! What `torch.save` writes since PyTorch 1.6: a zip archive with a pickle that describes tensors, and an entry of
//! bytes for each storage. The tensors are found in place; nothing is unpacked.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::WeightsError;
use crate::open::Contents;
use crate::pickle::{Id, Pickle, Pickled, Value, clipped, read_pickle};
use crate::source::{Access, SourceFile};
use crate::stored::Stored;
use crate::zip::{ZipError, read_directory};

/// The description of a model with its optimizer takes a hundredth of this.
const LONGEST_PICKLE: u64 = 64 << 20;
const DEEPEST: usize = 64;
const LONGEST_NAME: usize = 1024;
const MOST_LEAVES: usize = 1 << 20;

/// Tensors may share a storage, as tied weights do, but not so that a small file stands for a huge model.
const MOST_SHARED: u64 = 8;

/// Whether a file begins as those that PyTorch wrote before 1.6: a bare pickle, or a tar archive's first name.
pub(crate) fn is_legacy_pickle(first: &[u8]) -> bool {
    matches!(first, [0x80, 2..=5, ..]) && first.get(2..8) != Some(&[0; 6])
}

/// The tensors of a file that `torch.save` wrote, nested dictionaries flattened to dotted names.
pub(crate) fn read_torch(file: &Arc<SourceFile>) -> Result<Contents, WeightsError> {
    let fail = |detail: String| WeightsError::Pickle {
        path: file.path().to_path_buf(),
        detail,
    };
    let entries = read_directory(file).map_err(|error| match error {
        ZipError::Damaged(detail) => fail(detail),
        ZipError::Unread(error) => error,
    })?;
    let mut pickles = entries.keys().filter_map(|name| {
        let folder = name.strip_suffix("data.pkl")?;
        (folder.is_empty() || folder.find('/') == Some(folder.len() - 1)).then_some(folder)
    });
    let (Some(root), None) = (pickles.next(), pickles.next()) else {
        return Err(fail(
            "it is a zip archive without the one `data.pkl` that `torch.save` puts there".into(),
        ));
    };
    if let Some(order) = entries.get(&format!("{root}byteorder")) {
        let order = file.window(order.start..order.end.min(order.start + 16), Access::Whole)?;
        if &order[..] != b"little" {
            let order = String::from_utf8_lossy(&order).to_string();
            return Err(fail(format!(
                "its byte order is `{order}`, wanted `little`; write it again on another machine"
            )));
        }
    }
    let program = entries[&format!("{root}data.pkl")].clone();
    if program.end - program.start > LONGEST_PICKLE {
        return Err(fail(format!(
            "its pickle has {} bytes, more than the {LONGEST_PICKLE} allowed",
            program.end - program.start
        )));
    }
    let program = file.window(program, Access::Whole)?;
    let pickle = read_pickle(&program).map_err(fail)?;
    let mut collector = Collector {
        file,
        entries: &entries,
        root,
        pickle: &pickle,
        leaves: 0,
        bytes: 0,
        contents: Contents::default(),
    };
    if !matches!(
        pickle.values[pickle.root as usize],
        Value::Dict(_) | Value::Sequence(_)
    ) {
        return Err(fail(
            "it holds one value without a name, wanted a dictionary of tensors".into(),
        ));
    }
    collector.collect("", pickle.root, 0).map_err(fail)?;
    Ok(collector.contents)
}

struct Collector<'a> {
    file: &'a Arc<SourceFile>,
    entries: &'a BTreeMap<String, Range<u64>>,
    root: &'a str,
    pickle: &'a Pickle<'a>,
    leaves: usize,
    /// Of all tensors so far.
    bytes: u64,
    contents: Contents,
}

impl Collector<'_> {
    fn collect(&mut self, name: &str, id: Id, depth: usize) -> Result<(), String> {
        self.leaves += 1;
        if self.leaves > MOST_LEAVES {
            return Err(format!("it holds more than {MOST_LEAVES} values"));
        }
        if depth > DEEPEST {
            return Err(format!(
                "`{}` is nested deeper than {DEEPEST} levels",
                clipped(name)
            ));
        }
        let pickle = self.pickle;
        match &pickle.values[id as usize] {
            Value::Tensor(tensor) => self.put(name, tensor)?,
            Value::Dict(entries) => {
                for (key, value) in entries {
                    let key = match &pickle.values[*key as usize] {
                        Value::Text(key) => join(name, key)?,
                        Value::Int(key) => join(name, &key.to_string())?,
                        // A key of any other kind names no weight; should there be two, they are told as doubles.
                        _ => join(name, "?")?,
                    };
                    self.collect(&key, *value, depth + 1)?;
                }
            }
            Value::Sequence(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.collect(&join(name, &index.to_string())?, *item, depth + 1)?;
                }
            }
            _ => self.contents.passed_over += 1,
        }
        Ok(())
    }

    fn put(&mut self, name: &str, tensor: &Pickled) -> Result<(), String> {
        let stored = self
            .locate(tensor)
            .map_err(|problem| format!("`{name}` {problem}"))?;
        self.bytes = self
            .bytes
            .saturating_add(stored.count() as u64 * stored.dtype.size());
        if self.bytes > MOST_SHARED * self.file.length() {
            return Err(format!(
                "its tensors share storages so much that they would take more than {MOST_SHARED} times the file"
            ));
        }
        if self
            .contents
            .tensors
            .insert(name.to_string(), stored)
            .is_some()
        {
            return Err(format!("`{name}` appears twice"));
        }
        Ok(())
    }

    /// Compares a tensor with its storage, and the storage with the archive.
    fn locate(&self, tensor: &Pickled) -> Result<Stored, String> {
        let storage = &tensor.storage;
        let entry = format!("{}data/{}", self.root, storage.key);
        let bytes = self
            .entries
            .get(&entry)
            .ok_or_else(|| format!("lies in `{}`, which the archive lacks", clipped(&entry)))?;
        let length = bytes.end - bytes.start;
        let wide = storage.dtype.map_or(1, |dtype| dtype.size());
        let promised = storage.count.checked_mul(wide);
        if promised.is_none_or(|promised| promised > length) {
            return Err(format!(
                "lies in a storage of {} values of {wide} bytes, but `{}` holds {length} bytes",
                storage.count,
                clipped(&entry)
            ));
        }
        let held = promised.unwrap_or(0) / tensor.dtype.size();
        let too_far = || {
            format!(
                "of shape {:?}, strides {:?} and offset {} does not lie within its storage of {held} values",
                tensor.shape, tensor.strides, tensor.offset
            )
        };
        // With fewer values than places some would be used twice: no layer is stored so.
        let count = tensor
            .shape
            .iter()
            .try_fold(1_u64, |product, n| product.checked_mul(*n))
            .filter(|count| *count <= held)
            .ok_or_else(too_far)?;
        let last = tensor
            .shape
            .iter()
            .zip(&tensor.strides)
            .try_fold(tensor.offset, |last, (n, stride)| {
                last.checked_add(n.saturating_sub(1).checked_mul(*stride)?)
            });
        if count > 0 && last.is_none_or(|last| last >= held) {
            return Err(too_far());
        }
        let shape: Vec<usize> = tensor.shape.iter().map(|n| *n as usize).collect();
        let strides: Vec<usize> = tensor.strides.iter().map(|n| *n as usize).collect();
        let start = if count > 0 { tensor.offset } else { 0 };
        Ok(Stored {
            file: self.file.clone(),
            dtype: tensor.dtype,
            start: bytes.start + start * tensor.dtype.size(),
            strides: (count > 0 && !is_row_major(&shape, &strides)).then_some(strides),
            shape,
        })
    }
}

fn join(name: &str, key: &str) -> Result<String, String> {
    let joined = if name.is_empty() {
        key.to_string()
    } else {
        format!("{name}.{key}")
    };
    if joined.len() > LONGEST_NAME {
        return Err(format!("a name of {} bytes", joined.len()));
    }
    Ok(joined)
}

fn is_row_major(shape: &[usize], strides: &[usize]) -> bool {
    let mut inner = 1;
    shape.iter().zip(strides).rev().all(|(n, stride)| {
        let fits = *n == 1 || *stride == inner;
        inner *= n;
        fits
    })
}
