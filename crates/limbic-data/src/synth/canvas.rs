//! A small anti-aliased rasteriser: shapes as signed distance functions, painted one over another.
//!
//! Distances after Inigo Quilez, "2D distance functions". There are no gradients, textures or fonts.

/// A point (x right, y down).
pub(super) type Point = [f32; 2];

/// Red, green and blue in [0, 1].
pub(super) type Colour = [f32; 3];

/// A shape in its own coordinates.
pub(super) enum Shape {
    /// A filled ellipse with its axes along x and y.
    Ellipse { centre: Point, radii: Point },
    /// A line through the points, round at its ends, `width` thick.
    Stroke { points: Vec<Point>, width: f32 },
    /// The inside of a closed outline.
    Polygon { points: Vec<Point> },
}

impl Shape {
    /// A stroke along the quadratic Bezier curve from `start` over the handle to `end`.
    pub(super) fn curve(start: Point, handle: Point, end: Point, width: f32) -> Self {
        Self::Stroke {
            points: quadratic(start, handle, end),
            width,
        }
    }

    /// Signed distance from `p` to the outline, negative inside.
    fn distance(&self, p: Point) -> f32 {
        match self {
            Self::Ellipse { centre, radii } => {
                let q = [p[0] - centre[0], p[1] - centre[1]];
                let scaled = length([q[0] / radii[0], q[1] / radii[1]]);
                let slope = length([q[0] / (radii[0] * radii[0]), q[1] / (radii[1] * radii[1])]);
                if slope == 0.0 {
                    -radii[0].min(radii[1])
                } else {
                    scaled * (scaled - 1.0) / slope
                }
            }
            Self::Stroke { points, width } => {
                let nearest = points
                    .windows(2)
                    .map(|ends| distance_to_segment(p, ends[0], ends[1]))
                    .fold(f32::INFINITY, f32::min);
                nearest - width / 2.0
            }
            Self::Polygon { points } => {
                let mut nearest = f32::INFINITY;
                let mut inside = false;
                for (index, &a) in points.iter().enumerate() {
                    let b = points[(index + 1) % points.len()];
                    nearest = nearest.min(distance_to_segment(p, a, b));
                    // Even-odd rule: count the edges that a ray to the right crosses.
                    let crosses = (a[1] > p[1]) != (b[1] > p[1]);
                    if crosses && p[0] < a[0] + (p[1] - a[1]) / (b[1] - a[1]) * (b[0] - a[0]) {
                        inside = !inside;
                    }
                }
                if inside { -nearest } else { nearest }
            }
        }
    }

    /// The smallest and largest corner of a box around the shape.
    fn bounds(&self) -> (Point, Point) {
        match self {
            Self::Ellipse {
                centre: c,
                radii: r,
            } => ([c[0] - r[0], c[1] - r[1]], [c[0] + r[0], c[1] + r[1]]),
            Self::Stroke { points, width } => around(points, width / 2.0),
            Self::Polygon { points } => around(points, 0.0),
        }
    }
}

/// Where a shape's coordinates lie on the canvas: turned by `angle` (radians, clockwise on screen), scaled, moved.
#[derive(Clone, Copy)]
pub(super) struct Placement {
    pub(super) origin: Point,
    pub(super) angle: f32,
    pub(super) scale: f32,
}

impl Placement {
    fn to_canvas(self, p: Point) -> Point {
        let (sin, cos) = self.angle.sin_cos();
        [
            self.origin[0] + self.scale * (cos * p[0] - sin * p[1]),
            self.origin[1] + self.scale * (sin * p[0] + cos * p[1]),
        ]
    }

    fn to_shape(self, p: Point) -> Point {
        let (sin, cos) = self.angle.sin_cos();
        let q = [
            (p[0] - self.origin[0]) / self.scale,
            (p[1] - self.origin[1]) / self.scale,
        ];
        [cos * q[0] + sin * q[1], cos * q[1] - sin * q[0]]
    }
}

/// A square picture.
pub(super) struct Canvas {
    size: usize,
    pixels: Vec<Colour>,
}

impl Canvas {
    /// `size` by `size` pixels of one colour.
    pub(super) fn new(size: usize, colour: Colour) -> Self {
        Self {
            size,
            pixels: vec![colour; size * size],
        }
    }

    /// Paints `shape` over what is there; edge pixels are mixed by the share that the shape covers.
    pub(super) fn paint(&mut self, placement: Placement, shape: &Shape, colour: Colour) {
        let (low, high) = shape.bounds();
        let corners = [low, high, [low[0], high[1]], [high[0], low[1]]]
            .map(|corner| placement.to_canvas(corner));
        let (low, high) = around(&corners, 1.0);
        let range = |axis: usize| {
            let limit = self.size as f32;
            low[axis].floor().clamp(0.0, limit) as usize
                ..high[axis].ceil().clamp(0.0, limit) as usize
        };
        for y in range(1) {
            for x in range(0) {
                let local = placement.to_shape([x as f32 + 0.5, y as f32 + 0.5]);
                let cover = (0.5 - shape.distance(local) * placement.scale).clamp(0.0, 1.0);
                let pixel = &mut self.pixels[y * self.size + x];
                for channel in 0..3 {
                    pixel[channel] += cover * (colour[channel] - pixel[channel]);
                }
            }
        }
    }

    /// The picture as RGB bytes `[size, size, 3]`; `noise` gives what is added to each pixel, in units of 1/255.
    pub(super) fn into_rgb(self, mut noise: impl FnMut() -> f32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.pixels.len() * 3);
        for pixel in self.pixels {
            let grain = noise();
            bytes.extend(
                pixel.map(|channel| (channel * 255.0 + grain).round().clamp(0.0, 255.0) as u8),
            );
        }
        bytes
    }
}

/// Points along the quadratic Bezier curve from `start` over the handle to `end`.
pub(super) fn quadratic(start: Point, handle: Point, end: Point) -> Vec<Point> {
    const PIECES: usize = 10;
    let at = |piece: usize| {
        let t = piece as f32 / PIECES as f32;
        let (a, b, c) = ((1.0 - t) * (1.0 - t), 2.0 * t * (1.0 - t), t * t);
        [0, 1].map(|axis| a * start[axis] + b * handle[axis] + c * end[axis])
    };
    (0..=PIECES).map(at).collect()
}

fn length(v: Point) -> f32 {
    v[0].hypot(v[1])
}

fn distance_to_segment(p: Point, a: Point, b: Point) -> f32 {
    let (ap, ab) = ([p[0] - a[0], p[1] - a[1]], [b[0] - a[0], b[1] - a[1]]);
    let squared = ab[0] * ab[0] + ab[1] * ab[1];
    let share = if squared == 0.0 {
        0.0
    } else {
        ((ap[0] * ab[0] + ap[1] * ab[1]) / squared).clamp(0.0, 1.0)
    };
    length([ap[0] - share * ab[0], ap[1] - share * ab[1]])
}

fn around(points: &[Point], margin: f32) -> (Point, Point) {
    let low = |axis: usize| points.iter().map(|p| p[axis]).fold(f32::INFINITY, f32::min) - margin;
    let high = |axis: usize| {
        points
            .iter()
            .map(|p| p[axis])
            .fold(f32::NEG_INFINITY, f32::max)
            + margin
    };
    ([low(0), low(1)], [high(0), high(1)])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Area of `shape` in pixels: the sum of the coverage of all pixels.
    fn area(shape: &Shape, angle: f32) -> f32 {
        let mut canvas = Canvas::new(64, [0.0; 3]);
        let placement = Placement {
            origin: [32.0, 32.0],
            angle,
            scale: 2.0,
        };
        canvas.paint(placement, shape, [1.0; 3]);
        canvas.pixels.iter().map(|pixel| pixel[0]).sum()
    }

    #[test]
    fn painted_areas_equal_the_analytic_ones() {
        use std::f32::consts::PI;
        let ellipse = Shape::Ellipse {
            centre: [1.0, -1.0],
            radii: [10.0, 6.0],
        };
        let stroke = Shape::Stroke {
            points: vec![[-5.0, 0.0], [5.0, 0.0]],
            width: 4.0,
        };
        let polygon = Shape::Polygon {
            points: vec![[-6.0, -4.0], [6.0, -4.0], [6.0, 4.0], [-6.0, 4.0]],
        };
        let cases = [
            (ellipse, PI * 60.0),
            (stroke, 40.0 + PI * 4.0),
            (polygon, 96.0),
        ];
        for (shape, expected) in cases {
            for angle in [0.0, 0.5] {
                // The scale of 2 quadruples areas.
                let painted = area(&shape, angle) / 4.0;
                assert!(
                    (painted / expected - 1.0).abs() < 0.02,
                    "got {painted}, want {expected}"
                );
            }
        }
    }
}
