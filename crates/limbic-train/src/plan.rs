//! How many replicas a CPU runs, and on how many threads each.
//!
//! A replica a core keeps all cores busy where single operations do not, and takes the more memory and bandwidth. Which is
//! faster depends on machine and model, and no number depends on it: so the first steps of a run try each plan, and the
//! fastest is kept.

use std::fmt;

/// Replicas of a model on one CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// How many.
    pub replicas: usize,
    /// Threads of each.
    pub threads: usize,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let Self { replicas, threads } = self;
        write!(f, "{replicas} x {threads}")
    }
}

/// Steps of each plan; the first does not count: its threads start, and its memory is touched for the first time.
const STEPS: usize = 3;

/// Plans that are being tried.
#[derive(Debug, Clone)]
pub struct Calibration {
    /// With the positions a second that each came to.
    tried: Vec<(Plan, f64)>,
    left: Vec<Plan>,
    /// Of the plan in force, the speeds of its steps so far.
    speeds: Vec<f64>,
}

impl Calibration {
    /// Of the plans for `cores` and a step in `shards` pieces; `None` where there is only one.
    pub fn new(cores: usize, shards: usize) -> Option<Self> {
        let mut left = Vec::new();
        let mut replicas = cores.min(shards).max(1);
        loop {
            left.push(Plan {
                replicas,
                threads: (cores / replicas).max(1),
            });
            if replicas == 1 {
                break;
            }
            replicas /= 2;
        }
        (left.len() > 1).then_some(Self {
            tried: Vec::new(),
            left,
            speeds: Vec::new(),
        })
    }

    /// The plan to run the next step with.
    pub fn plan(&self) -> Plan {
        match self.left.first() {
            Some(plan) => *plan,
            None => self.fastest(),
        }
    }

    fn fastest(&self) -> Plan {
        let speeds = self.tried.iter();
        let best = speeds.max_by(|a, b| a.1.total_cmp(&b.1));
        best.expect("at least two plans were tried").0
    }

    /// Takes the speed of a step under [`plan`](Self::plan), in positions a second; with the last of them, what was found.
    pub fn record(&mut self, speed: f64) -> Option<String> {
        if self.left.is_empty() {
            return None;
        }
        self.speeds.push(speed);
        if self.speeds.len() < STEPS {
            return None;
        }
        let counted = self.speeds.drain(..).skip(1);
        let mean = counted.sum::<f64>() / (STEPS - 1) as f64;
        self.tried.push((self.left.remove(0), mean));
        self.left.is_empty().then(|| {
            let told = self.tried.iter();
            let told: Vec<String> = told
                .map(|(plan, speed)| format!("{plan}: {speed:.0}"))
                .collect();
            format!(
                "replicas x threads, positions/s: {}; going on with {}",
                told.join(", "),
                self.fastest()
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(replicas: usize, threads: usize) -> Plan {
        Plan { replicas, threads }
    }

    #[test]
    fn each_plan_is_tried_and_the_fastest_kept() {
        let mut calibration = Calibration::new(8, 4).unwrap();
        let speed = |plan: Plan| [0.0, 30.0, 50.0, 0.0, 40.0][plan.replicas];
        let mut order = Vec::new();
        let mut told = None;
        for step in 0..12 {
            let plan = calibration.plan();
            order.push(plan);
            // The first step of a plan is an outlier, the others lie about its speed.
            let speed = [1e9, speed(plan) - 4.0, speed(plan) + 4.0][step % STEPS];
            told = told.or(calibration.record(speed));
        }
        let plans = [plan(4, 2), plan(2, 4), plan(1, 8)];
        assert_eq!(order[..9], plans.map(|plan| [plan; STEPS]).concat());
        assert_eq!(order[9..], [plan(2, 4); 3]);
        let told = told.unwrap();
        assert!(
            told.ends_with("4 x 2: 40, 2 x 4: 50, 1 x 8: 30; going on with 2 x 4"),
            "{told}"
        );
    }

    #[test]
    fn one_plan_needs_no_trial() {
        assert!(Calibration::new(1, 4).is_none());
        assert!(Calibration::new(8, 1).is_none());
    }
}
