//! What may be wrong with a recipe's values.

use super::Recipe;

impl Recipe {
    /// What is wrong with the values, each problem with its key. Keys and types were checked when the recipe was read.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |fine: bool, problem: String| {
            if !fine {
                problems.push(problem);
            }
        };
        let Self {
            name, data, train, ..
        } = self;
        check(
            !name.is_empty()
                && !name.starts_with(['.', '-'])
                && !name.contains(['/', '\\'])
                && !name.contains(char::is_control),
            format!("`name` is {name:?}, wanted a name that can be a folder's"),
        );
        check(
            data.tasks.values().any(|weight| *weight > 0.0)
                && data
                    .tasks
                    .values()
                    .all(|weight| *weight >= 0.0 && weight.is_finite()),
            "`data.tasks` needs weights of at least 0, one of them above it".into(),
        );
        check(
            (0.0..=1.0).contains(&data.max_bad),
            format!(
                "`data.max_bad` is {}, wanted a share from 0 to 1",
                data.max_bad
            ),
        );
        for (key, value) in [
            ("train.steps", train.steps as usize),
            ("train.batch_size", train.batch_size),
            ("train.accumulate", train.accumulate),
            ("train.shards", train.shards),
            ("data.max_tokens", data.max_tokens),
            ("evaluation.max_new_tokens", self.evaluation.max_new_tokens),
            ("evaluation.batch_size", self.evaluation.batch_size),
            ("run.log_every", self.run.log_every as usize),
            ("run.save_every", self.run.save_every as usize),
            ("run.keep", self.run.keep),
        ] {
            check(value > 0, format!("`{key}` is 0, wanted at least 1"));
        }
        check(
            train.shards == 0 || train.batch_size % train.shards == 0,
            format!(
                "`train.batch_size` is {}, wanted a multiple of `train.shards`, which is {}",
                train.batch_size, train.shards
            ),
        );
        const MOST_SAMPLES: usize = 1 << 20;
        check(
            train
                .batch_size
                .checked_mul(train.accumulate)
                .is_some_and(|samples| samples <= MOST_SAMPLES),
            format!(
                "`train.batch_size` times `train.accumulate` is more than {MOST_SAMPLES} samples a step"
            ),
        );
        let samples = train.batch_size.saturating_mul(train.accumulate);
        for problem in train.loss.problems(train.steps, samples) {
            check(false, problem);
        }
        check(
            train.lora_plus > 0.0 && train.lora_plus.is_finite(),
            format!(
                "`train.lora_plus` is {}, wanted a positive number, at least 1 as a rule",
                train.lora_plus
            ),
        );
        check(
            !train.learning_rate.is_empty(),
            "`train.learning_rate` names no part, so nothing would be trained; wanted some of decoder, lora, projectors, fusions, head".into(),
        );
        for (part, rate) in &train.learning_rate {
            check(
                *rate > 0.0 && rate.is_finite(),
                format!("`train.learning_rate.{part:?}` is {rate}, wanted a positive number; leave the part out to freeze it").to_lowercase(),
            );
        }
        for (key, value) in [
            ("train.betas[0]", train.betas[0]),
            ("train.betas[1]", train.betas[1]),
        ] {
            check(
                (0.0..1.0).contains(&value),
                format!("`{key}` is {value}, wanted at least 0 and less than 1"),
            );
        }
        for (key, value) in [
            ("train.final_rate", train.final_rate),
            ("train.weight_decay", train.weight_decay),
            ("cache.memory_gib", self.cache.memory_gib),
        ] {
            check(
                value >= 0.0 && value.is_finite(),
                format!("`{key}` is {value}, wanted at least 0"),
            );
        }
        for (key, value) in [
            ("train.epsilon", train.epsilon),
            ("train.clip_norm", train.clip_norm),
            ("cache.max_gib", self.cache.max_gib),
        ] {
            check(
                value > 0.0 && value.is_finite(),
                format!("`{key}` is {value}, wanted more than 0"),
            );
        }
        check(
            self.evaluation.patience == 0 || self.evaluation.every > 0,
            "`evaluation.patience` counts evaluations, but `evaluation.every` is 0".into(),
        );
        problems
    }
}
