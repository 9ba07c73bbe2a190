//! Who speaks: what a face and a voice keep from clip to clip.

use super::canvas::{Colour, Point};
use super::dice::Dice;

/// A drawn identity.
pub(super) struct Speaker {
    pub(super) name: String,
    pub(super) skin: Colour,
    pub(super) hair: Colour,
    pub(super) brow: Colour,
    pub(super) iris: Colour,
    pub(super) lips: Colour,
    pub(super) shirt: Colour,
    pub(super) background: Colour,
    /// Half width and half height of the head (pixels).
    pub(super) head: Point,
    /// How far the hair hangs down behind the head (pixels).
    pub(super) hair_drop: f32,
    /// Mean pitch at rest (Hz).
    pub(super) pitch: f32,
    /// Factor on all formants: 1 for a vocal tract of about 17 cm, more for a shorter one.
    pub(super) formant_scale: f32,
}

// Every skin is light enough for dark brows to show at half the size.
const SKINS: [Colour; 5] = [
    [0.98, 0.84, 0.73],
    [0.93, 0.75, 0.60],
    [0.85, 0.65, 0.48],
    [0.76, 0.56, 0.40],
    [0.68, 0.48, 0.35],
];
const HAIRS: [Colour; 5] = [
    [0.12, 0.09, 0.08],
    [0.28, 0.17, 0.10],
    [0.45, 0.28, 0.14],
    [0.62, 0.40, 0.16],
    [0.40, 0.38, 0.38],
];
const IRISES: [Colour; 3] = [[0.25, 0.15, 0.08], [0.20, 0.38, 0.55], [0.22, 0.42, 0.25]];
const SHIRTS: [Colour; 5] = [
    [0.75, 0.25, 0.25],
    [0.22, 0.40, 0.70],
    [0.25, 0.55, 0.35],
    [0.45, 0.30, 0.55],
    [0.85, 0.70, 0.25],
];
const BACKGROUNDS: [Colour; 5] = [
    [0.70, 0.80, 0.88],
    [0.78, 0.84, 0.74],
    [0.84, 0.78, 0.70],
    [0.74, 0.72, 0.82],
    [0.62, 0.68, 0.70],
];

impl Speaker {
    /// The speaker with this number; the same for every size of set with this seed.
    pub(super) fn new(seed: u64, number: usize) -> Self {
        let name = format!("synth-{number:02}");
        let mut dice = Dice::new(seed, &["speaker", &name]);
        let skin = tinted(&mut dice, &SKINS);
        let hair = tinted(&mut dice, &HAIRS);
        Self {
            name,
            skin,
            hair,
            brow: hair.map(|channel| channel * 0.45),
            iris: tinted(&mut dice, &IRISES),
            lips: [skin[0] * 0.78, skin[1] * 0.40, skin[2] * 0.42],
            shirt: tinted(&mut dice, &SHIRTS),
            background: tinted(&mut dice, &BACKGROUNDS),
            head: [dice.within(26.0, 30.0), dice.within(33.0, 37.0)],
            hair_drop: dice.within(0.0, 16.0),
            // Narrow enough that one speaker's high pitch is no other speaker's middle one.
            pitch: dice.within(140.0, 175.0),
            formant_scale: dice.within(0.95, 1.2),
        }
    }
}

fn tinted(dice: &mut Dice, palette: &[Colour]) -> Colour {
    let base = palette[dice.below(palette.len())];
    let light = dice.within(0.95, 1.03);
    base.map(|channel| (channel * light).clamp(0.0, 1.0))
}
