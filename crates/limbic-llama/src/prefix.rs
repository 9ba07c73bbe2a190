//! Which prompts begin alike, so that a system prompt, a clip and its transcript go through the decoder once, however
//! many rows ask about them.
//!
//! Prompts that begin alike form a tree. It is walked from the root, one pass of the decoder a level: first what all
//! share, then what each group shares, at last what each row has for itself. A level for which too little is saved is
//! left out.

use std::collections::BTreeMap;
use std::ops::Range;

/// A stretch of positions that one row of a pass takes up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// The row of the pass before that it goes on from; 0 in the first pass.
    pub(crate) parent: usize,
    /// A prompt that holds these positions.
    pub(crate) prompt: usize,
    /// May be empty, except in the last pass.
    pub(crate) positions: Range<usize>,
}

/// A pass more reads all weights once more. On CPU that takes as long as so many positions at most.
pub(crate) const WORTH_A_PASS: usize = 128;

/// Prompts whose first `done` positions are row `row` of the last pass, and which are known to be alike up to `alike`.
struct Group {
    members: Vec<usize>,
    row: usize,
    done: usize,
    alike: usize,
}

/// The passes, from the first to the one that ends every prompt and has a row for each, in their order.
///
/// `prompts` holds each one's length and what stands at its positions: equal numbers after equal beginnings mean the same
/// input. Nothing is known of a prompt with no numbers. Each prompt keeps its last position for the last pass. A pass is
/// made where it saves `worth` positions.
pub(crate) fn passes(prompts: &[(usize, &[u64])], worth: usize) -> Vec<Vec<Span>> {
    let (known, unknown): (Vec<usize>, Vec<usize>) =
        (0..prompts.len()).partition(|prompt| !prompts[*prompt].1.is_empty());
    let alone = |prompt: usize| Group {
        members: vec![prompt],
        row: 0,
        done: 0,
        alike: 0,
    };
    let mut groups: Vec<Group> = unknown.into_iter().map(alone).collect();
    if !known.is_empty() {
        groups.push(Group {
            members: known,
            ..alone(0)
        });
    }
    let mut passes = Vec::new();
    while groups.iter().any(|group| group.members.len() > 1) {
        for group in &mut groups {
            group.alike = alike(prompts, group);
        }
        let saved = |group: &Group| (group.alike - group.done) * (group.members.len() - 1);
        if groups.iter().map(saved).sum::<usize>() >= worth {
            passes.push(pass(prompts, &mut groups));
        }
        groups = groups
            .into_iter()
            .flat_map(|group| split(prompts, group))
            .collect();
    }
    groups.sort_by_key(|group| group.members[0]);
    passes.push(
        groups
            .into_iter()
            .map(|group| Span {
                parent: group.row,
                prompt: group.members[0],
                positions: group.done..prompts[group.members[0]].0,
            })
            .collect(),
    );
    passes
}

/// How many first positions the members share, their last ones excepted.
fn alike(prompts: &[(usize, &[u64])], group: &Group) -> usize {
    let (first, others) = group.members.split_first().expect("a group has members");
    let (length, first) = prompts[*first];
    others.iter().fold(length - 1, |alike, other| {
        let (length, other) = prompts[*other];
        let alike = alike.min(length - 1);
        let equal = |place: &usize| first[*place] == other[*place];
        (group.alike..alike).take_while(equal).count() + group.alike
    })
}

/// The pass in which each group of several takes up what it shares. Rows of a single prompt fill the room beside them.
fn pass(prompts: &[(usize, &[u64])], groups: &mut [Group]) -> Vec<Span> {
    let shared = groups.iter().filter(|group| group.members.len() > 1);
    let longest = shared
        .map(|group| group.alike - group.done)
        .max()
        .unwrap_or(0);
    groups
        .iter_mut()
        .enumerate()
        .map(|(row, group)| {
            let prompt = group.members[0];
            let end = match group.members.len() {
                1 => (group.done + longest).min(prompts[prompt].0 - 1),
                _ => group.alike,
            };
            let span = Span {
                parent: group.row,
                prompt,
                positions: group.done..end,
            };
            group.done = end;
            group.row = row;
            span
        })
        .collect()
}

/// Groups of those members that go on alike.
fn split(prompts: &[(usize, &[u64])], group: Group) -> Vec<Group> {
    if group.members.len() == 1 {
        return vec![group];
    }
    let mut alone = Vec::new();
    let mut by_next: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    for &member in &group.members {
        let (length, content) = prompts[member];
        if length - 1 == group.alike {
            alone.push(vec![member]);
        } else {
            by_next
                .entry(content[group.alike])
                .or_default()
                .push(member);
        }
    }
    alone
        .into_iter()
        .chain(by_next.into_values())
        .map(|members| Group { members, ..group })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(text: &str) -> Vec<u64> {
        text.bytes().map(u64::from).collect()
    }

    fn plan(texts: &[&str], worth: usize) -> Vec<Vec<(usize, String)>> {
        let numbers: Vec<Vec<u64>> = texts.iter().map(|text| numbers(text)).collect();
        let prompts: Vec<(usize, &[u64])> =
            numbers.iter().map(|n| (n.len(), n.as_slice())).collect();
        let of_span = |span: &Span| {
            (
                span.parent,
                texts[span.prompt][span.positions.clone()].to_string(),
            )
        };
        let passes = passes(&prompts, worth);
        passes
            .iter()
            .map(|pass| pass.iter().map(of_span).collect())
            .collect()
    }

    /// What each row has read after the last pass.
    fn read(passes: &[Vec<(usize, String)>]) -> Vec<String> {
        let mut rows = vec![String::new()];
        for pass in passes {
            rows = pass
                .iter()
                .map(|(parent, text)| format!("{}{text}", rows[*parent]))
                .collect();
        }
        rows
    }

    fn spans(pass: &[(usize, &str)]) -> Vec<(usize, String)> {
        pass.iter()
            .map(|(parent, text)| (*parent, text.to_string()))
            .collect()
    }

    #[test]
    fn what_is_shared_is_read_once_at_every_level() {
        let texts = [
            "sys.clip1.why",
            "sys.clip2.why",
            "sys.clip1.who",
            "sys.clip2.how",
            "other",
        ];
        let passes = plan(&texts, 3);
        let wanted = [
            spans(&[(0, "othe"), (0, "sys.clip")]),
            spans(&[(0, ""), (1, "1.wh"), (1, "2.")]),
            spans(&[(1, "y"), (2, "why"), (1, "o"), (2, "how"), (0, "r")]),
        ];
        assert_eq!(passes, wanted);
        assert_eq!(read(&passes), texts);
        // The first level saves 24 positions, the second six.
        assert_eq!(plan(&texts, 7).len(), 2);
        assert_eq!(read(&plan(&texts, 7)), texts);
        assert_eq!(
            plan(&texts, 100),
            [texts.map(|text| (0, text.to_string())).to_vec()]
        );
    }

    #[test]
    fn equal_prompts_and_beginnings_of_others_keep_their_last_position() {
        let texts = ["abc", "abc", "ab", "abcde", "abcdx"];
        let passes = plan(&texts, 1);
        assert_eq!(read(&passes), texts);
        assert!(
            passes
                .last()
                .unwrap()
                .iter()
                .all(|(_, text)| !text.is_empty())
        );
        assert_eq!(passes[0], spans(&[(0, "a")]));
    }

    #[test]
    fn nothing_is_shared_where_nothing_is_known() {
        let known = numbers("abcd");
        let passes = passes(&[(4, &[]), (4, &known), (4, &[]), (4, &known)], 1);
        let of_prompt = |span: &Span| (span.parent, span.prompt, span.positions.clone());
        let last: Vec<_> = passes.last().unwrap().iter().map(of_prompt).collect();
        assert_eq!(
            last,
            [(0, 0, 3..4), (2, 1, 3..4), (1, 2, 3..4), (2, 3, 3..4)]
        );
        assert!(super::passes(&[], 1).iter().all(Vec::is_empty));
    }
}
