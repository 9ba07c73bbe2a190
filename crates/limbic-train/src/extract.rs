//! Fills the feature cache without training, on as many machines as there are.

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::AtomicBool;

use burn::tensor::Device;
use limbic_data::{Clip, Manifest, Split};

use crate::blueprint::{at_fault, blueprint};
use crate::feature_cache::CacheReport;
use crate::features::{FeatureReader, Quarantined};
use crate::origin::Origin;
use crate::{Recipe, RunError};

/// One of several parts of a recipe's clips, in text `2/8`. The parts are disjoint, near-equal, and together all clips.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClipShard {
    /// Which one, from 1.
    pub number: usize,
    /// How many there are.
    pub of: usize,
}

/// What an extraction did.
#[derive(Debug)]
pub struct Extraction {
    /// Clips of the part.
    pub clips: usize,
    /// Those of them that are unusable.
    pub quarantined: Vec<Quarantined>,
    /// What was found and made.
    pub report: CacheReport,
}

impl ClipShard {
    /// All clips.
    pub const ALL: ClipShard = ClipShard { number: 1, of: 1 };

    /// Its part of `clips`: every so many, so that each has its share of all splits.
    pub fn part<T>(self, clips: Vec<T>) -> Vec<T> {
        let own = clips.into_iter().skip(self.number - 1);
        own.step_by(self.of).collect()
    }
}

impl FromStr for ClipShard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers = text.split_once('/');
        let parsed =
            numbers.and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match parsed {
            Some((number, of)) if (1..=of).contains(&number) => Ok(Self { number, of }),
            _ => Err("wanted a part and their number, from 1/8 to 8/8".into()),
        }
    }
}

impl fmt::Display for ClipShard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.number, self.of)
    }
}

/// Finds or makes the features of `shard` of the clips of `recipe`, of all splits. What is found is verified. `progress`
/// gets the clips done and their number.
///
/// # Errors
/// A recipe without cache, or one that cannot be used; [`RunError::Stopped`], and what was made until then is kept.
pub fn extract(
    recipe: &Recipe,
    shard: ClipShard,
    device: &Device,
    progress: &(dyn Fn(usize, usize) + Sync),
    stop: &AtomicBool,
) -> anyhow::Result<Extraction> {
    if !recipe.cache.enabled {
        return Err(RunError::recipe(
            "`cache.enabled` is false, so features have no place to go; set it to true",
        ));
    }
    let manifest = Manifest::read(&recipe.data.manifest)?;
    let init = Origin::of(recipe)?;
    let config = blueprint(recipe, init.as_ref().map(|init| &init.config))?;
    let reader = FeatureReader::verifying(&config, device, &recipe.cache)
        .map_err(|error| at_fault(format!("{error:#}")))?;
    let splits = Split::ALL.into_iter();
    let clips: Vec<&Clip> = splits
        .flat_map(|split| recipe.data.clips(&manifest, split))
        .collect();
    let clips = shard.part(clips);
    let told = |done: usize| progress(done, clips.len());
    // Whether so many may be unusable is for those to say who use the rest.
    let (_, quarantined) = reader.read_all(&clips, 1.0, &told, stop)?;
    Ok(Extraction {
        clips: clips.len(),
        quarantined,
        report: reader.report().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_disjoint_and_cover_all() {
        for of in 1..12 {
            let mut all: Vec<usize> = (1..=of)
                .flat_map(|number| ClipShard { number, of }.part((0..10).collect()))
                .collect();
            all.sort_unstable();
            assert_eq!(all, (0..10).collect::<Vec<_>>());
        }
        assert_eq!("2/8".parse(), Ok(ClipShard { number: 2, of: 8 }));
        for wrong in ["0/8", "9/8", "1", "a/b", "1/0", ""] {
            assert!(wrong.parse::<ClipShard>().is_err(), "{wrong}");
        }
    }
}
