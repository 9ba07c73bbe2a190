//! Features of a clip, in memory or fetched when they are needed: what does not fit into memory can be trained on.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, Weak};

use limbic_data::Clip;
use limbic_encoders::Features;
use rayon::prelude::*;

use crate::RunError;
use crate::features::FeatureReader;
use crate::perception::FeatureKey;

/// Features of one medium of a clip.
#[derive(Debug, Clone)]
pub enum Stored {
    /// In memory as long as the run lasts.
    Kept(Arc<Features>),
    /// In memory while a step needs them.
    OnCall(Arc<OnCall>),
}

/// Features that the cache has, or that are made anew.
#[derive(Debug)]
pub struct OnCall {
    pub(crate) reader: Arc<FeatureReader>,
    pub(crate) clip: Arc<Clip>,
    /// Number of the way in which the clip is perceived.
    pub(crate) perception: usize,
    pub(crate) key: Option<FeatureKey>,
    /// Length and dim.
    pub(crate) shape: (usize, usize),
    pub(crate) now: Mutex<Weak<Features>>,
}

/// Features that stay in memory as long as this lives.
#[derive(Debug)]
#[must_use]
pub(crate) struct Held {
    _features: Vec<Arc<Features>>,
}

impl From<Features> for Stored {
    fn from(features: Features) -> Self {
        Self::Kept(Arc::new(features))
    }
}

impl Stored {
    /// Number of features.
    pub fn length(&self) -> usize {
        match self {
            Self::Kept(features) => features.length,
            Self::OnCall(on_call) => on_call.shape.0,
        }
    }

    /// The features.
    ///
    /// # Panics
    /// When nobody holds them.
    pub(crate) fn held(&self) -> Arc<Features> {
        match self {
            Self::Kept(features) => Arc::clone(features),
            Self::OnCall(on_call) => on_call
                .alive()
                .expect("features are held while they are read"),
        }
    }
}

/// Brings features into memory: from the cache, or made anew where it has lost them. They are the same either way.
///
/// # Errors
/// A clip whose media are not what they were when the run began.
pub(crate) fn hold<'a>(all: impl IntoIterator<Item = &'a Stored>) -> anyhow::Result<Held> {
    let mut seen = BTreeSet::new();
    let on_call: Vec<&Arc<OnCall>> = all
        .into_iter()
        .filter_map(|stored| match stored {
            Stored::Kept(_) => None,
            Stored::OnCall(on_call) => seen.insert(Arc::as_ptr(on_call)).then_some(on_call),
        })
        .collect();
    let found: Vec<Option<Arc<Features>>> = on_call
        .par_iter()
        .map(|on_call| on_call.find())
        .collect::<anyhow::Result<_>>()?;
    let missing: Vec<&Arc<OnCall>> = on_call
        .into_iter()
        .zip(&found)
        .filter_map(|(on_call, found)| found.is_none().then_some(on_call))
        .collect();
    for on_call in &missing {
        on_call.reader.build(on_call.perception)?;
    }
    let made: Vec<Arc<Features>> = missing
        .par_iter()
        .map(|on_call| on_call.make())
        .collect::<anyhow::Result<_>>()?;
    Ok(Held {
        _features: found.into_iter().flatten().chain(made).collect(),
    })
}

impl OnCall {
    fn slot(&self) -> std::sync::MutexGuard<'_, Weak<Features>> {
        self.now.lock().expect("nobody panics while holding it")
    }

    fn alive(&self) -> Option<Arc<Features>> {
        self.slot().upgrade()
    }

    fn find(&self) -> anyhow::Result<Option<Arc<Features>>> {
        if let Some(alive) = self.alive() {
            return Ok(Some(alive));
        }
        let found = self.key.as_ref().and_then(|key| self.reader.find(key));
        found.map(|features| self.take(features)).transpose()
    }

    fn make(&self) -> anyhow::Result<Arc<Features>> {
        let key = self.reader.key(&self.clip, self.perception);
        let both = key.as_ref().zip(self.key.as_ref());
        if !both.is_some_and(|(now, then)| now.is_of(then)) {
            return Err(self.changed("its media file is another"));
        }
        let made = self
            .reader
            .make(&self.clip, self.perception, key.as_ref())?;
        match made {
            Ok(Some(features)) => self.take(features),
            Ok(None) => Err(self.changed("the medium is gone")),
            Err((reason, detail)) => Err(self.changed(&format!("{reason}: {detail}"))),
        }
    }

    fn take(&self, features: Features) -> anyhow::Result<Arc<Features>> {
        if (features.length, features.dim) != self.shape {
            return Err(self.changed("it has another length"));
        }
        let features = Arc::new(features);
        *self.slot() = Arc::downgrade(&features);
        Ok(features)
    }

    fn changed(&self, how: &str) -> anyhow::Error {
        RunError::Data(format!(
            "clip {} is no longer what it was when the run began: {how}; restore it, and the same command goes on",
            self.clip.id
        ))
        .into()
    }
}
