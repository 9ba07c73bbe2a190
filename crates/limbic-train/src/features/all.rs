//! Features of all clips of a split, with all cores.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use limbic_data::Clip;
use rayon::prelude::*;

use super::{EncodedClip, FeatureReader, Look, Quarantined};
use crate::RunError;

impl FeatureReader {
    /// Builds the encoders of what is missing, where a clip can be decoded at all. A clip a core is decoded in vain, and
    /// so is each damaged one: encoders are large, and damaged clips alone are no reason to build one.
    fn build_missing(
        &self,
        clips: &[Arc<Clip>],
        looks: &[Vec<Look>],
        stop: &AtomicBool,
    ) -> anyhow::Result<()> {
        for (number, perception) in self.perceptions.iter().enumerate() {
            let needs = |(clip, looks): (&Arc<Clip>, &Vec<Look>)| {
                matches!(looks[number], Look::Missing(_))
                    && !stop.load(Ordering::Relaxed)
                    && matches!(perception.decode(clip), Ok(Some(_)))
            };
            if self.encoders[perception.encoder].built().is_none()
                && clips.par_iter().zip(looks).any(needs)
            {
                self.build(number)?;
            }
        }
        Ok(())
    }

    /// Features of all `clips`, in their order, and the clips that are unusable. `progress` gets the number done; nothing
    /// more is read once `stop` is set.
    ///
    /// # Errors
    /// [`RunError::Stopped`]; [`RunError::Data`] when more than the share `max_bad` is unusable, with the first few reasons;
    /// an encoder that cannot be built.
    pub fn read_all(
        self: &Arc<Self>,
        clips: &[&Clip],
        max_bad: f64,
        progress: &(dyn Fn(usize) + Sync),
        stop: &AtomicBool,
    ) -> anyhow::Result<(Vec<EncodedClip>, Vec<Quarantined>)> {
        let going_on = || match stop.load(Ordering::Relaxed) {
            true => Err(RunError::Stopped),
            false => Ok(()),
        };
        let shared: Vec<Arc<Clip>> = clips.iter().map(|clip| Arc::new((*clip).clone())).collect();
        let looks: Vec<Vec<Look>> = shared
            .par_iter()
            .map(|clip| going_on().map(|()| self.look_up(clip)))
            .collect::<Result<_, _>>()?;
        self.build_missing(&shared, &looks, stop)?;
        let done = AtomicUsize::new(0);
        let complete = |clip: &Arc<Clip>, looks: Vec<Look>| {
            going_on()?;
            let result = self.complete(clip, looks)?;
            progress(done.fetch_add(1, Ordering::Relaxed) + 1);
            anyhow::Ok(result)
        };
        // What an earlier clip misses too is made for that one, and then found.
        let mut missed = HashSet::new();
        let is_repeated: Vec<bool> = looks
            .iter()
            .map(|looks| {
                let new = hashes_of_missing(looks).map(|hash| missed.insert(hash));
                new.filter(|is_new| !is_new).count() > 0
            })
            .collect();
        let firsts: Vec<Option<_>> = shared
            .par_iter()
            .zip(looks)
            .zip(&is_repeated)
            .map(|((clip, looks), repeated)| match repeated {
                true => Ok(None),
                false => complete(clip, looks).map(Some),
            })
            .collect::<anyhow::Result<_>>()?;
        let results: Vec<_> = shared
            .par_iter()
            .zip(firsts)
            .map(|(clip, first)| match first {
                Some(result) => Ok(result),
                None => complete(clip, self.look_up(clip)),
            })
            .collect::<anyhow::Result<_>>()?;
        let (mut encoded, mut bad) = (Vec::new(), Vec::new());
        for result in results {
            match result {
                Ok(clip) => encoded.push(clip),
                Err(clip) => bad.push(clip),
            }
        }
        if bad.len() as f64 > max_bad * clips.len() as f64 {
            let shown: Vec<String> = bad
                .iter()
                .take(5)
                .map(|clip| format!("  {} ({}): {}", clip.id, clip.reason, clip.detail))
                .collect();
            return Err(RunError::Data(format!(
                "{} of {} clips are unusable, and a share of {max_bad} may be (`data.max_bad` of a recipe, `--max-bad` of eval); \
                 repair or remove them, or raise it:\n{}",
                bad.len(),
                clips.len(),
                shown.join("\n")
            ))
            .into());
        }
        Ok((encoded, bad))
    }
}

/// Where in the cache the features would lie that a clip misses.
fn hashes_of_missing(looks: &[Look]) -> impl Iterator<Item = String> {
    looks.iter().filter_map(|look| match look {
        Look::Found(_) => None,
        Look::Missing(key) => key.as_ref()?.key.clone(),
    })
}
