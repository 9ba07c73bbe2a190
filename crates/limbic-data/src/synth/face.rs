//! A drawn face whose brows, eyes, mouth and head show a [`Look`].
//!
//! All lengths are in pixels of the 96 pixel picture. The lips do not follow the voice: tempo and loudness would
//! show in the picture, and the picture alone must not tell what the sound is there to tell.

use std::f32::consts::TAU;

use super::canvas::{Canvas, Colour, Placement, Point, Shape, quadratic};
use super::dice::Dice;
use super::levels::{Brows, Eyes, Head, Look, Mouth};
use super::speaker::Speaker;

/// Width and height of the picture.
pub(super) const SIZE: usize = 96;

/// Standard deviation of the pixel noise, in units of 1/255.
const GRAIN: f32 = 2.5;

/// The parts that move, as continuous values between the levels.
#[derive(Clone, Copy)]
struct Expression {
    brow_lift: f32,
    /// How far the inner ends of the brows stand above the outer ones.
    brow_slant: f32,
    /// Half the height of the eye.
    eye_opening: f32,
    mouth_half_width: f32,
    /// How far the corners of the mouth stand above its middle.
    mouth_curve: f32,
    /// Half the height between the lips.
    mouth_opening: f32,
    lip_width: f32,
}

impl Expression {
    const NEUTRAL: Self = Self {
        brow_lift: 0.0,
        brow_slant: 0.0,
        eye_opening: 3.8,
        mouth_half_width: 9.0,
        mouth_curve: 0.0,
        mouth_opening: 0.0,
        lip_width: 2.8,
    };

    fn of(look: Look) -> Self {
        let mut e = Self::NEUTRAL;
        (e.brow_lift, e.brow_slant) = match look.brows {
            Brows::Flat => (0.0, 0.0),
            Brows::Raised => (6.5, 0.0),
            Brows::Lowered => (-3.5, -7.5),
            Brows::Slanted => (2.0, 8.0),
        };
        e.eye_opening = match look.eyes {
            Eyes::Normal => 3.8,
            Eyes::Wide => 6.8,
            Eyes::Narrow => 1.5,
        };
        (
            e.mouth_half_width,
            e.mouth_curve,
            e.mouth_opening,
            e.lip_width,
        ) = match look.mouth {
            Mouth::Flat => (9.0, 0.0, 0.0, 2.8),
            Mouth::Smiling => (14.0, 9.0, 2.5, 2.4),
            Mouth::Frowning => (11.5, -8.5, 0.0, 3.2),
            Mouth::Open => (7.5, 0.0, 8.5, 2.4),
            Mouth::Tight => (5.5, 0.0, 0.0, 5.5),
        };
        e
    }

    /// `share` of the way from the neutral face to this one.
    fn grown(self, share: f32) -> Self {
        let blend = |from: f32, to: f32| from + share * (to - from);
        let from = Self::NEUTRAL;
        Self {
            brow_lift: blend(from.brow_lift, self.brow_lift),
            brow_slant: blend(from.brow_slant, self.brow_slant),
            eye_opening: blend(from.eye_opening, self.eye_opening),
            mouth_half_width: blend(from.mouth_half_width, self.mouth_half_width),
            mouth_curve: blend(from.mouth_curve, self.mouth_curve),
            mouth_opening: blend(from.mouth_opening, self.mouth_opening),
            lip_width: blend(from.lip_width, self.lip_width),
        }
    }
}

/// One performance: a speaker's face, its look, and what varies from clip to clip.
pub(super) struct Face<'a> {
    speaker: &'a Speaker,
    head: Head,
    apex: Expression,
    seat: Point,
    tilt: f32,
    scale: f32,
    gaze: Point,
    phase: f32,
    haste: f32,
    grain: Dice,
}

impl<'a> Face<'a> {
    /// What varies is rolled from `seed` and the clip's `id` alone, so that it tells nothing of the emotion.
    pub(super) fn new(speaker: &'a Speaker, look: Look, seed: u64, id: &str) -> Self {
        let mut dice = Dice::new(seed, &["face", id]);
        let strength = dice.within(0.9, 1.1);
        Self {
            speaker,
            head: look.head,
            apex: Expression::of(look).grown(strength),
            seat: [dice.within(-1.5, 1.5), dice.within(-1.5, 1.5)],
            tilt: dice.within(-0.03, 0.03),
            scale: dice.within(0.95, 1.04),
            gaze: [dice.within(-1.2, 1.2), dice.within(-0.5, 0.5)],
            phase: dice.within(0.0, TAU),
            haste: dice.within(0.9, 1.1),
            grain: Dice::new(seed, &["grain", id]),
        }
    }

    /// The picture at `time` of `duration` (s) as RGB bytes `[SIZE, SIZE, 3]`.
    ///
    /// The look grows within the first fifth of the clip and then stays, with a small pulse.
    pub(super) fn draw(&mut self, time: f32, duration: f32) -> Vec<u8> {
        let onset = (time / (0.2 * duration)).min(1.0);
        let grown = onset * onset * (3.0 - 2.0 * onset);
        let pulse = 1.0 + 0.04 * (TAU * 1.3 * time + self.phase).sin();
        let expression = self.apex.grown(grown * pulse);

        let beat = |per_second: f32| (TAU * per_second * self.haste * time + self.phase).sin();
        // The features slide further than the head, which reads as a turn of it.
        let (shift, slide, turn) = match self.head {
            Head::Still => ([0.4 * beat(0.5), 0.0], [0.0, 0.0], 0.0),
            Head::Shaking => (
                [2.0 * beat(3.1), 0.0],
                [2.5 * beat(3.1), 0.0],
                0.03 * beat(3.1),
            ),
            Head::Nodding => ([0.0, 2.0 * beat(1.9)], [0.0, 2.5 * beat(1.9)], 0.0),
            Head::Drooping => ([0.0, 4.0 * grown], [0.0, 3.5 * grown], 0.12 * grown),
        };
        let middle = SIZE as f32 / 2.0;
        let placement = Placement {
            origin: [
                middle + self.seat[0] + shift[0],
                middle - 1.0 + self.seat[1] + shift[1],
            ],
            angle: self.tilt + turn,
            scale: self.scale,
        };

        let mut canvas = Canvas::new(SIZE, self.speaker.background);
        self.paint_body(&mut canvas);
        self.paint_head(&mut canvas, placement);
        self.paint_features(&mut canvas, placement, slide, &expression);
        canvas.into_rgb(|| GRAIN * self.grain.bell())
    }

    fn paint_body(&self, canvas: &mut Canvas) {
        let upright = Placement {
            origin: [48.0 + self.seat[0], 96.0],
            angle: 0.0,
            scale: 1.0,
        };
        let neck = Shape::Stroke {
            points: vec![[0.0, -22.0], [0.0, 0.0]],
            width: 20.0,
        };
        let shoulders = Shape::Ellipse {
            centre: [0.0, 5.0],
            radii: [42.0, 15.0],
        };
        canvas.paint(upright, &neck, darker(self.speaker.skin, 0.82));
        canvas.paint(upright, &shoulders, self.speaker.shirt);
    }

    fn paint_head(&self, canvas: &mut Canvas, placement: Placement) {
        let Speaker {
            skin,
            hair,
            head: [width, height],
            hair_drop,
            ..
        } = *self.speaker;
        let hair_back = Shape::Ellipse {
            centre: [0.0, -5.0 + hair_drop / 2.0],
            radii: [width + 4.0, height + hair_drop / 2.0],
        };
        let ears = [-width, width].map(|x| Shape::Ellipse {
            centre: [x, 0.0],
            radii: [4.0, 6.5],
        });
        let skull = Shape::Ellipse {
            centre: [0.0, 0.0],
            radii: [width, height],
        };
        canvas.paint(placement, &hair_back, hair);
        for ear in &ears {
            canvas.paint(placement, ear, darker(skin, 0.9));
        }
        canvas.paint(placement, &skull, skin);
        // The hairline stays above the highest brow.
        let crown = height + 1.0;
        let mut hairline = quadratic(
            [-width * 0.86, -18.0],
            [0.0, -height - 8.0],
            [width * 0.86, -18.0],
        );
        hairline.extend(quadratic(
            [width * 0.86, -18.0],
            [width * 0.7, -crown - 3.0],
            [0.0, -crown - 3.0],
        ));
        hairline.extend(quadratic(
            [0.0, -crown - 3.0],
            [-width * 0.7, -crown - 3.0],
            [-width * 0.86, -18.0],
        ));
        canvas.paint(placement, &Shape::Polygon { points: hairline }, hair);
    }

    fn paint_features(
        &self,
        canvas: &mut Canvas,
        placement: Placement,
        slide: Point,
        expression: &Expression,
    ) {
        let at = |x: f32, y: f32| [x + slide[0], y + slide[1]];
        for side in [-1.0, 1.0] {
            self.paint_eye(
                canvas,
                placement,
                at(side * 11.5, -5.0),
                expression.eye_opening,
            );
            let Expression {
                brow_lift,
                brow_slant,
                ..
            } = *expression;
            let height = -14.0 - brow_lift;
            let inner = at(side * 4.5, height - brow_slant / 2.0);
            let outer = at(side * 18.0, height + brow_slant / 2.0);
            let arch = at(side * 12.0, height - 2.0 - 0.5 * brow_lift.max(0.0));
            canvas.paint(
                placement,
                &Shape::curve(inner, arch, outer, 4.0),
                self.speaker.brow,
            );
        }
        let nose = Shape::curve(at(0.0, -2.0), at(4.5, 7.5), at(-1.5, 7.0), 1.6);
        canvas.paint(placement, &nose, darker(self.speaker.skin, 0.72));
        self.paint_mouth(canvas, placement, at(0.0, 18.0), expression);
    }

    fn paint_eye(&self, canvas: &mut Canvas, placement: Placement, centre: Point, opening: f32) {
        let white = Shape::Ellipse {
            centre,
            radii: [6.6, opening],
        };
        canvas.paint(placement, &white, [0.97, 0.97, 0.95]);
        let pupil = [centre[0] + self.gaze[0], centre[1] + self.gaze[1]];
        // The lids cover what of the iris stands out.
        let iris = Shape::Ellipse {
            centre: pupil,
            radii: [3.2, opening.min(3.2)],
        };
        canvas.paint(placement, &iris, self.speaker.iris);
        let dot = Shape::Ellipse {
            centre: pupil,
            radii: [1.5, opening.min(1.5)],
        };
        canvas.paint(placement, &dot, [0.04; 3]);
        let lid = Shape::curve(
            [centre[0] - 6.6, centre[1]],
            [centre[0], centre[1] - 2.0 * opening - 0.8],
            [centre[0] + 6.6, centre[1]],
            1.6,
        );
        canvas.paint(placement, &lid, darker(self.speaker.brow, 0.8));
    }

    fn paint_mouth(
        &self,
        canvas: &mut Canvas,
        placement: Placement,
        centre: Point,
        expression: &Expression,
    ) {
        let Expression {
            mouth_half_width,
            mouth_curve,
            mouth_opening,
            lip_width,
            ..
        } = *expression;
        let corner = |side: f32| {
            [
                centre[0] + side * mouth_half_width,
                centre[1] - mouth_curve / 2.0,
            ]
        };
        // A quadratic curve passes half way between its handle and the line through its ends.
        let handle = |gap: f32| {
            [
                centre[0],
                centre[1] + mouth_curve / 2.0 + mouth_curve / 2.0 + 2.0 * gap,
            ]
        };
        let upper = quadratic(corner(-1.0), handle(-mouth_opening), corner(1.0));
        let lower = quadratic(corner(1.0), handle(mouth_opening), corner(-1.0));
        if mouth_opening > 0.5 {
            let inside = upper.iter().chain(&lower).copied().collect();
            // A smile shows the teeth, a gaping mouth the dark.
            let colour = if mouth_curve > 2.0 {
                [0.95, 0.94, 0.92]
            } else {
                [0.22, 0.05, 0.06]
            };
            canvas.paint(placement, &Shape::Polygon { points: inside }, colour);
        }
        for points in [upper, lower] {
            canvas.paint(
                placement,
                &Shape::Stroke {
                    points,
                    width: lip_width,
                },
                self.speaker.lips,
            );
        }
    }
}

fn darker(colour: Colour, share: f32) -> Colour {
    colour.map(|channel| channel * share)
}
