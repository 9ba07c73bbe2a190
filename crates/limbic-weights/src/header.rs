//! The header of a safetensors file: eight bytes of length, then JSON with dtype, shape and place of each tensor.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

use crate::WeightsError;
use crate::source::{Access, SourceFile};
use crate::stored::{Stored, StoredDtype};

/// No published model has a header of a tenth of this; a longer one is refused before it is read.
const LONGEST_HEADER: u64 = 32 << 20;

/// Dimensions of a tensor at most.
pub(crate) const MOST_DIMENSIONS: usize = 16;

/// The tensors of a safetensors file, by name. Their places are checked against each other and against the file.
pub(crate) fn read_safetensors(
    file: &Arc<SourceFile>,
) -> Result<BTreeMap<String, Stored>, WeightsError> {
    let format = |detail: String| WeightsError::Format {
        path: file.path().to_path_buf(),
        detail,
    };
    if file.length() < 8 {
        return Err(format(format!(
            "{} bytes are too few for a header",
            file.length()
        )));
    }
    let first = file.window(0..8, Access::Whole)?;
    let length = u64::from_le_bytes(first[..].try_into().expect("eight bytes"));
    if length > LONGEST_HEADER {
        return Err(format(format!(
            "its header would have {length} bytes, more than the {LONGEST_HEADER} allowed"
        )));
    }
    let data = 8 + length;
    if data > file.length() {
        return Err(format(format!(
            "its header would have {length} bytes, but the file ends after {}",
            file.length()
        )));
    }
    let json = file.window(8..data, Access::Whole)?;
    let header: Header =
        serde_json::from_slice(&json).map_err(|error| format(format!("header: {error}")))?;
    let mut tensors = BTreeMap::new();
    let mut places = Vec::new();
    for (name, described) in header.0 {
        let place = described
            .place()
            .map_err(|detail| format(format!("`{name}` {detail}")))?;
        places.push((place.start, place.end, name.clone()));
        let stored = Stored {
            file: file.clone(),
            dtype: place.dtype,
            shape: place.shape,
            start: data.saturating_add(place.start),
            strides: None,
        };
        tensors.insert(name, stored);
    }
    check_places(places, file.length() - data).map_err(format)?;
    Ok(tensors)
}

/// The format wants the tensors to lie side by side from the first byte to the last.
fn check_places(mut places: Vec<(u64, u64, String)>, length: u64) -> Result<(), String> {
    places.sort();
    let mut end = 0;
    let mut before = None;
    for (start, stop, name) in places {
        if start != end {
            let before = before.map_or("the header".into(), |name: String| format!("`{name}`"));
            let how = if start < end {
                "overlaps"
            } else {
                "leaves a gap behind"
            };
            return Err(format!(
                "`{name}` begins at {start} and {how} {before}, which ends at {end}"
            ));
        }
        if stop > length {
            return Err(format!(
                "`{name}` ends at {stop}, but there are {length} bytes of tensors; the file is cut off"
            ));
        }
        end = stop;
        before = Some(name);
    }
    if end != length {
        return Err(format!("{} bytes lie behind the last tensor", length - end));
    }
    Ok(())
}

/// What the header says of one tensor.
#[derive(serde::Deserialize)]
struct Described {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: [u64; 2],
}

struct Place {
    dtype: StoredDtype,
    shape: Vec<usize>,
    start: u64,
    end: u64,
}

impl Described {
    fn place(self) -> Result<Place, String> {
        let dtype = StoredDtype::named(&self.dtype)
            .ok_or_else(|| format!("has dtype `{}`, which is not known", self.dtype))?;
        if self.shape.len() > MOST_DIMENSIONS {
            return Err(format!("has {} dimensions", self.shape.len()));
        }
        let [start, end] = self.data_offsets;
        let wanted = self
            .shape
            .iter()
            .try_fold(dtype.size(), |product, n| product.checked_mul(*n));
        if end < start || Some(end - start) != wanted {
            return Err(format!(
                "lies at {start} to {end}, which is not the size of {dtype} {:?}",
                self.shape
            ));
        }
        let shape = self.shape.iter().map(|n| usize::try_from(*n));
        let shape = shape
            .collect::<Result<_, _>>()
            .map_err(|_| format!("has shape {:?}", self.shape))?;
        Ok(Place {
            dtype,
            shape,
            start,
            end,
        })
    }
}

/// The tensors of the JSON; its `__metadata__` is only checked.
struct Header(BTreeMap<String, Described>);

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tensors;
        impl<'de> Visitor<'de> for Tensors {
            type Value = Header;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
                let mut tensors = BTreeMap::new();
                let mut metadata: Option<BTreeMap<String, String>> = None;
                while let Some(name) = map.next_key::<String>()? {
                    let twice = if name == "__metadata__" {
                        metadata.replace(map.next_value()?).is_some()
                    } else {
                        put(&mut tensors, &name, map.next_value()?)
                    };
                    if twice {
                        return Err(A::Error::custom(format!("`{name}` appears twice")));
                    }
                }
                Ok(Header(tensors))
            }
        }
        deserializer.deserialize_map(Tensors)
    }
}

/// A JSON object whose keys differ, which serde_json leaves unchecked.
pub(crate) struct UniqueMap<V>(pub(crate) BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for UniqueMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Keys<V> {
            type Value = UniqueMap<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<UniqueMap<V>, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some(name) = map.next_key::<String>()? {
                    if put(&mut entries, &name, map.next_value()?) {
                        return Err(A::Error::custom(format!("`{name}` appears twice")));
                    }
                }
                Ok(UniqueMap(entries))
            }
        }
        deserializer.deserialize_map(Keys(PhantomData))
    }
}

/// Whether the name was there before.
fn put<V>(map: &mut BTreeMap<String, V>, name: &str, value: V) -> bool {
    match map.entry(name.to_string()) {
        Entry::Vacant(vacant) => {
            vacant.insert(value);
            false
        }
        Entry::Occupied(_) => true,
    }
}
