//! Which rows of a batch see which.

use std::ops::Range;

/// Rows that see each other and no other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Number of the first row, which stands at position 0.
    pub first: usize,
    /// Number of rows.
    pub length: usize,
}

/// Which rows see which, and which of them somebody reads.
#[derive(Clone, Debug)]
pub struct Sequences {
    /// T
    pub(crate) rows: usize,
    pub(crate) segments: Vec<Segment>,
    is_causal: bool,
    /// Positions of all rows; 0 outside the segments.
    positions: Vec<usize>,
}

impl Sequences {
    /// Rows outside all `segments` see nothing and are seen by none.
    ///
    /// # Panics
    /// When segments overlap, stand in another order than their rows, or reach over the last row.
    pub fn new(rows: usize, segments: Vec<Segment>, is_causal: bool) -> Self {
        let mut positions = vec![0; rows];
        let mut end = 0;
        for segment in &segments {
            assert!(
                segment.first >= end && segment.first + segment.length <= rows,
                "{segment:?} after row {end} of {rows}"
            );
            end = segment.first + segment.length;
            for (position, place) in positions[segment.first..end].iter_mut().enumerate() {
                *place = position;
            }
        }
        Self {
            rows,
            segments,
            is_causal,
            positions,
        }
    }

    /// T
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Rows of the longest segment, if there is one.
    pub fn longest(&self) -> Option<usize> {
        self.segments.iter().map(|segment| segment.length).max()
    }

    pub(crate) fn positions(&self) -> &[usize] {
        &self.positions
    }

    /// For each segment which of the queries, that are the ascending rows `read`, stand in it, and how many of its keys
    /// each of them sees.
    pub(crate) fn queries(&self, read: &[usize]) -> Vec<(Range<usize>, Vec<usize>)> {
        let of_segment = |segment: &Segment| {
            let begin = read.partition_point(|row| *row < segment.first);
            let end = read.partition_point(|row| *row < segment.first + segment.length);
            let sees = |row: &usize| match self.is_causal {
                true => row - segment.first + 1,
                false => segment.length,
            };
            (begin..end, read[begin..end].iter().map(sees).collect())
        };
        self.segments.iter().map(of_segment).collect()
    }
}
