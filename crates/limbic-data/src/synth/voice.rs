//! A formant-synthesised voice whose pitch, loudness, tempo and timbre show a [`Tone`].
//!
//! Source and filter (Fant 1960; Klatt 1980): a glottal pulse train and noise pass through four resonators in
//! series, whose frequencies follow the letters of the words. There is no attempt at intelligible speech.

use std::f32::consts::{PI, TAU};

use super::dice::Dice;
use super::levels::{Loudness, Movement, Pitch, Tempo, Timbre, Tone};
use super::speaker::Speaker;

/// Samples per second.
pub(super) const SAMPLE_RATE: usize = 16_000;

/// Samples between two settings of the resonators (5 ms).
const STEP: usize = 80;

/// Root mean square of the room's noise.
const ROOM: f32 = 0.001;

/// The sound of one letter.
#[derive(Clone, Copy)]
struct Phone {
    /// The first three formants (Hz).
    formants: [f32; 3],
    /// Level of the glottal source.
    voicing: f32,
    /// Level of the noise source.
    hiss: f32,
    /// Length in units of a vowel.
    length: f32,
}

impl Phone {
    /// Vowels after the averages of Peterson and Barney (1952); consonants by manner of articulation.
    fn of(letter: char) -> Self {
        let vowel = |formants| Self {
            formants,
            voicing: 1.0,
            hiss: 0.0,
            length: 1.0,
        };
        let sonorant = |formants| Self {
            formants,
            voicing: 0.45,
            hiss: 0.0,
            length: 0.5,
        };
        let fricative = |formants, voicing| Self {
            formants,
            voicing,
            hiss: 0.25,
            length: 0.55,
        };
        let stop = |formants, voicing| Self {
            formants,
            voicing,
            hiss: 0.04,
            length: 0.4,
        };
        match letter.to_ascii_lowercase() {
            'a' => vowel([730.0, 1_190.0, 2_440.0]),
            'e' => vowel([530.0, 1_840.0, 2_480.0]),
            'i' | 'y' => vowel([300.0, 2_250.0, 3_000.0]),
            'o' => vowel([570.0, 850.0, 2_410.0]),
            'u' => vowel([320.0, 900.0, 2_240.0]),
            'm' | 'n' => sonorant([280.0, 1_300.0, 2_300.0]),
            'l' | 'r' | 'w' | 'j' => sonorant([380.0, 1_100.0, 2_000.0]),
            'v' | 'z' => fricative([300.0, 1_600.0, 2_600.0], 0.3),
            'f' | 's' | 'h' | 'c' | 'x' => fricative([400.0, 1_800.0, 2_900.0], 0.0),
            'b' | 'd' | 'g' => stop([250.0, 1_400.0, 2_400.0], 0.15),
            'p' | 't' | 'k' | 'q' => stop([300.0, 1_700.0, 2_600.0], 0.0),
            _ => Self {
                formants: [500.0, 1_500.0, 2_500.0],
                voicing: 0.0,
                hiss: 0.0,
                length: 0.6,
            },
        }
    }
}

/// How the source sounds.
struct Source {
    /// Level of breath noise beside full voicing.
    breath: f32,
    /// Deviation of single periods, as a share.
    jitter: f32,
    /// Weakening of every second period, as a share: a creak an octave below.
    alternation: f32,
    /// Depth of a tremble of 6.5 Hz in pitch and level, as a share.
    tremble: f32,
    /// How far the low-pass on the pulses is closed: 0 bright, towards 1 dull.
    dullness: f32,
}

impl Source {
    fn of(timbre: Timbre) -> Self {
        match timbre {
            Timbre::Clear => Self {
                breath: 0.01,
                jitter: 0.004,
                alternation: 0.0,
                tremble: 0.0,
                dullness: 0.45,
            },
            Timbre::Breathy => Self {
                breath: 0.35,
                jitter: 0.01,
                alternation: 0.0,
                tremble: 0.0,
                dullness: 0.85,
            },
            Timbre::Harsh => Self {
                breath: 0.12,
                jitter: 0.05,
                alternation: 0.6,
                tremble: 0.0,
                dullness: 0.1,
            },
            Timbre::Trembling => Self {
                breath: 0.05,
                jitter: 0.01,
                alternation: 0.0,
                tremble: 0.6,
                dullness: 0.6,
            },
        }
    }
}

/// The voice of `speaker` reading `words` over and over for `samples` samples at [`SAMPLE_RATE`], in [-1, 1].
///
/// What varies beside the tone is rolled from `seed` and the clip's `id` alone.
pub(super) fn speak(
    speaker: &Speaker,
    tone: Tone,
    words: &str,
    samples: usize,
    seed: u64,
    id: &str,
) -> Vec<f32> {
    let mut dice = Dice::new(seed, &["voice", id]);
    let pitch = speaker.pitch * dice.within(0.95, 1.05) * pitch_factor(tone.pitch);
    let vowel_seconds = dice.within(0.93, 1.07)
        * match tone.tempo {
            Tempo::Fast => 0.085,
            Tempo::Steady => 0.15,
            Tempo::Slow => 0.27,
        };
    let level = dice.within(0.9, 1.1)
        * match tone.loudness {
            Loudness::Loud => 0.20,
            Loudness::Moderate => 0.07,
            Loudness::Soft => 0.025,
        };
    let source = Source::of(tone.timbre);
    let track = phone_track(words, vowel_seconds, samples);
    let phase = dice.within(0.0, TAU);

    let mut resonators = [Resonator::default(); 4];
    let mut glottis = Glottis::new();
    let mut formants = track[0].formants;
    let (mut voicing, mut hiss) = (0.0, 0.0);
    let mut wave = Vec::with_capacity(samples);
    for sample in 0..samples {
        let time = sample as f32 / SAMPLE_RATE as f32;
        let phone = track[sample / STEP];
        if sample % STEP == 0 {
            // The articulators glide towards the next letter instead of jumping.
            for (now, target) in formants.iter_mut().zip(phone.formants) {
                *now += 0.35 * (target * speaker.formant_scale - *now);
            }
            let frequencies = [
                formants[0],
                formants[1],
                formants[2],
                3_600.0 * speaker.formant_scale.min(1.1),
            ];
            for (resonator, (frequency, bandwidth)) in resonators
                .iter_mut()
                .zip(frequencies.into_iter().zip([70.0, 100.0, 140.0, 220.0]))
            {
                resonator.tune(frequency, bandwidth);
            }
        }
        // Both sources open and close within about 10 ms.
        voicing += 0.01 * (phone.voicing - voicing);
        hiss += 0.01 * (phone.hiss - hiss);

        let tremble = source.tremble * (TAU * 6.5 * time + phase).sin();
        let share = sample as f32 / samples as f32;
        let frequency = pitch * contour(tone.movement, share, time, phase) * (1.0 + 0.12 * tremble);
        let pulse = glottis.next(frequency, &source, &mut dice);
        let noise = dice.bell();
        let excitation = voicing * (1.0 + tremble) * (pulse + source.breath * noise) + hiss * noise;
        wave.push(
            resonators
                .iter_mut()
                .fold(excitation, |signal, resonator| resonator.pass(signal)),
        );
    }
    scale_to(&mut wave, level);
    for sample in &mut wave {
        // Loud peaks are rounded off, as by a microphone near its limit.
        *sample = (*sample + ROOM * dice.bell()).tanh();
    }
    wave
}

fn pitch_factor(pitch: Pitch) -> f32 {
    match pitch {
        Pitch::High => 1.65,
        Pitch::Middle => 1.0,
        Pitch::Low => 0.62,
    }
}

/// Pitch against its mean at `share` of the clip.
fn contour(movement: Movement, share: f32, time: f32, phase: f32) -> f32 {
    match movement {
        Movement::Flat => 1.0,
        Movement::Lively => 1.0 + 0.22 * (TAU * 2.2 * time + phase).sin(),
        Movement::Falling => 1.22 - 0.44 * share,
        Movement::Rising => 0.78 + 0.44 * share,
    }
}

/// The phone that sounds in each step, from the first letter on, beginning anew after the last.
fn phone_track(words: &str, vowel_seconds: f32, samples: usize) -> Vec<Phone> {
    let steps = samples.div_ceil(STEP);
    let mut track = Vec::with_capacity(steps + 64);
    let letters = words.chars().chain([' ']).cycle();
    for letter in letters {
        let phone = Phone::of(letter);
        let seconds = phone.length * vowel_seconds;
        let count = (seconds * SAMPLE_RATE as f32 / STEP as f32)
            .round()
            .max(1.0) as usize;
        track.extend(std::iter::repeat_n(phone, count));
        if track.len() >= steps {
            break;
        }
    }
    track
}

/// The vocal folds: one pulse a period (Rosenberg 1971), differentiated by the lips, then dulled.
struct Glottis {
    /// Position within the period, 0 to 1.
    position: f32,
    stretch: f32,
    strength: f32,
    odd: bool,
    flow: f32,
    dulled: f32,
}

impl Glottis {
    fn new() -> Self {
        Self {
            position: 0.0,
            stretch: 1.0,
            strength: 1.0,
            odd: false,
            flow: 0.0,
            dulled: 0.0,
        }
    }

    fn next(&mut self, frequency: f32, source: &Source, dice: &mut Dice) -> f32 {
        self.position += frequency * self.stretch / SAMPLE_RATE as f32;
        if self.position >= 1.0 {
            self.position -= 1.0;
            self.stretch = 1.0 + source.jitter * dice.bell();
            self.odd = !self.odd;
            self.strength = if self.odd {
                1.0 - source.alternation
            } else {
                1.0
            };
        }
        let flow = self.strength
            * match self.position {
                opening if opening < 0.4 => 0.5 * (1.0 - (PI * opening / 0.4).cos()),
                closing if closing < 0.56 => (PI / 2.0 * (closing - 0.4) / 0.16).cos(),
                _ => 0.0,
            };
        // Per-sample differences shrink with the period, so they are scaled back to its rate.
        let edge = (flow - self.flow) * SAMPLE_RATE as f32 / (frequency * 20.0);
        self.flow = flow;
        self.dulled += (1.0 - source.dullness) * (edge - self.dulled);
        self.dulled
    }
}

/// A two-pole resonator with unit gain at 0 Hz (Klatt 1980, equation 1).
#[derive(Clone, Copy, Default)]
struct Resonator {
    a: f32,
    b: f32,
    c: f32,
    last: f32,
    before: f32,
}

impl Resonator {
    fn tune(&mut self, frequency: f32, bandwidth: f32) {
        let period = 1.0 / SAMPLE_RATE as f32;
        self.c = -(-TAU * bandwidth * period).exp();
        self.b = 2.0 * (-PI * bandwidth * period).exp() * (TAU * frequency * period).cos();
        self.a = 1.0 - self.b - self.c;
    }

    fn pass(&mut self, input: f32) -> f32 {
        let output = self.a * input + self.b * self.last + self.c * self.before;
        self.before = self.last;
        self.last = output;
        output
    }
}

fn scale_to(wave: &mut [f32], level: f32) {
    let power = wave.iter().map(|sample| sample * sample).sum::<f32>() / wave.len() as f32;
    let factor = level / power.sqrt().max(1e-9);
    for sample in wave {
        *sample *= factor;
    }
}

#[cfg(test)]
mod tests {
    use super::super::emotion::Modality;
    use super::*;

    fn render(tone: Tone) -> Vec<f32> {
        speak(
            &Speaker::new(1, 0),
            tone,
            "this morning at school",
            2 * SAMPLE_RATE,
            1,
            "clip",
        )
    }

    fn level(wave: &[f32]) -> f32 {
        (wave.iter().map(|s| s * s).sum::<f32>() / wave.len() as f32).sqrt()
    }

    #[test]
    fn every_tone_has_its_level_and_no_clipping() {
        for rendition in Modality::Audio.renditions() {
            let tone = Tone::of(rendition);
            let wave = render(tone);
            let range = match tone.loudness {
                Loudness::Loud => 0.12..0.24,
                Loudness::Moderate => 0.055..0.08,
                Loudness::Soft => 0.02..0.03,
            };
            assert!(
                range.contains(&level(&wave)),
                "{tone}: level {}",
                level(&wave)
            );
            assert!(wave.iter().all(|sample| sample.abs() < 1.0));
        }
    }

    #[test]
    fn the_fundamental_follows_the_pitch() {
        let speaker = Speaker::new(1, 0);
        for (pitch, factor) in [
            (Pitch::Low, 0.62),
            (Pitch::Middle, 1.0),
            (Pitch::High, 1.65),
        ] {
            let tone = Tone {
                pitch,
                movement: Movement::Flat,
                loudness: Loudness::Moderate,
                tempo: Tempo::Steady,
                timbre: Timbre::Clear,
            };
            let wave = speak(&speaker, tone, "aaaa", SAMPLE_RATE, 1, "clip");
            // The lag of the highest autocorrelation within 70 to 330 Hz.
            let score = |lag: usize| {
                wave.iter()
                    .zip(&wave[lag..])
                    .map(|(a, b)| a * b)
                    .sum::<f32>()
                    / (wave.len() - lag) as f32
            };
            let lag = (SAMPLE_RATE / 330..SAMPLE_RATE / 70)
                .max_by(|&a, &b| score(a).total_cmp(&score(b)))
                .unwrap();
            let found = SAMPLE_RATE as f32 / lag as f32;
            let wanted = speaker.pitch * factor;
            let octaves = (found / wanted).log2();
            // Within the 5 % that a clip may be off its speaker, or its octave below, which correlates as well.
            let off = (octaves - octaves.round()).abs();
            assert!(
                off < 0.1 && octaves < 0.5,
                "{pitch}: found {found} Hz, wanted {wanted} Hz"
            );
        }
    }
}
