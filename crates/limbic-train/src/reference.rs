//! A part of a recipe that stands in a file of its own, or in the recipe itself.

use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::reading::explain;

/// A path to a YAML file that describes a `T`, or the `T` written out. Once resolved it is always the latter, and so
/// is what the run keeps of its recipe.
#[derive(Debug, Clone, PartialEq)]
pub enum Reference<T> {
    /// Not yet read.
    Path(PathBuf),
    /// The thing itself.
    Inline(T),
}

impl<T: DeserializeOwned> Reference<T> {
    /// Reads the file, if it is one.
    ///
    /// # Errors
    /// One problem: the key, and what is wrong with the file.
    pub(crate) fn resolve(&mut self, key: &str) -> Result<(), String> {
        if let Self::Path(path) = self {
            *self = Self::Inline(read(path, key)?);
        }
        Ok(())
    }

    /// The thing itself, to be changed.
    ///
    /// # Panics
    /// As [`Reference::get`].
    pub(crate) fn get_mut(&mut self) -> &mut T {
        match self {
            Self::Inline(value) => value,
            Self::Path(path) => panic!("{} was not resolved", path.display()),
        }
    }

    /// The thing itself.
    ///
    /// # Panics
    /// Before it was resolved: reading a recipe resolves all of it.
    pub fn get(&self) -> &T {
        match self {
            Self::Inline(value) => value,
            Self::Path(path) => panic!("{} was not resolved", path.display()),
        }
    }
}

fn read<T: DeserializeOwned>(path: &Path, key: &str) -> Result<T, String> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        format!(
            "`{key}` names {}: {error}; paths are taken from the folder you run limbic in",
            path.display()
        )
    })?;
    serde_yaml::from_str(&text).map_err(|error| explain(path, &text, &error))
}

impl<T: Default> Default for Reference<T> {
    fn default() -> Self {
        Self::Inline(T::default())
    }
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Reference<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PathOr(PhantomData))
    }
}

/// Reads a mapping as it comes, so that errors inside it keep their place in the file.
struct PathOr<T>(PhantomData<T>);

impl<'de, T: DeserializeOwned> Visitor<'de> for PathOr<T> {
    type Value = Reference<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        formatter.write_str("the path of a YAML file, or its content")
    }

    fn visit_str<E>(self, path: &str) -> Result<Self::Value, E> {
        Ok(Reference::Path(path.into()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Reference::Inline)
    }
}

impl<T: Serialize> Serialize for Reference<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Path(path) => path.serialize(serializer),
            Self::Inline(value) => value.serialize(serializer),
        }
    }
}
