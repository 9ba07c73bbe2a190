use std::fs::File;
use std::path::{Path, PathBuf};

use limbic_weights::Checkpoint;

use super::{Folder, assert_says, refused};

impl Folder {
    fn safetensors(&self, name: &str, header: &str, bytes: usize) -> PathBuf {
        self.write(name, &file(header, bytes))
    }
}

fn file(header: &str, bytes: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(vec![0; bytes]);
    file
}

const ONE: &str = r#"{"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}"#;

#[test]
fn truncated_files_and_shards() {
    let folder = Folder::new();
    let whole = file(ONE, 24);
    for length in 0..whole.len() {
        let path = folder.write("cut.safetensors", &whole[..length]);
        assert_says(&refused(&path), &["cut.safetensors"]);
    }
    folder.write("model-1.safetensors", &whole[..whole.len() - 1]);
    folder.write(
        "model.safetensors.index.json",
        br#"{"weight_map": {"a": "model-1.safetensors"}}"#,
    );
    let message = refused(folder.0.path());
    assert_says(
        &message,
        &["model-1.safetensors", "`a` ends at 24", "cut off"],
    );
}

#[test]
fn shards_that_are_missing_or_lack_what_the_index_promises() {
    let folder = Folder::new();
    let index = |text: &str| folder.write("model.safetensors.index.json", text.as_bytes());
    index(r#"{"metadata": {"total_size": 24}, "weight_map": {"a": "model-2.safetensors"}}"#);
    assert_says(
        &refused(folder.0.path()),
        &["model-2.safetensors", "No such file"],
    );
    folder.safetensors("model-2.safetensors", ONE, 24);
    Checkpoint::open(folder.0.path()).unwrap();
    index(r#"{"weight_map": {"b": "model-2.safetensors"}}"#);
    assert_says(&refused(folder.0.path()), &["`b` is missing", "promises"]);
    index(r#"{"weight_map": {}}"#);
    Checkpoint::open(folder.0.path()).unwrap();
    index(r#"{"weight_map": {"a": "model-2.safetensors", "a": "model-2.safetensors"}}"#);
    assert_says(&refused(folder.0.path()), &["`a` appears twice"]);
    index(r#"{"weight_map": ["a"]}"#);
    assert_says(
        &refused(folder.0.path()),
        &["index.json", "expected an object"],
    );
    index(r#"{"weights": {}}"#);
    assert_says(&refused(folder.0.path()), &["weight_map"]);
    let two = r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
                  "b": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}"#;
    folder.safetensors("model-2.safetensors", two, 16);
    index(r#"{"weight_map": {"a": "model-2.safetensors"}}"#);
    assert_says(&refused(folder.0.path()), &["holds `b`", "does not list"]);
}

#[test]
fn an_index_that_leads_elsewhere() {
    let folder = Folder::new();
    for shard in ["../x", "/etc/passwd", "a/b", "..", "", r"..\\x"] {
        let text = format!(r#"{{"weight_map": {{"a": "{shard}"}}}}"#);
        folder.write("model.safetensors.index.json", text.as_bytes());
        assert_says(&refused(folder.0.path()), &["`a`", "in the same folder"]);
    }
}

#[test]
fn headers_that_lie() {
    let folder = Folder::new();
    let cases = [
        ("not json", "header"),
        ("[1, 2]", "an object of tensors"),
        ("{}", "24 bytes lie behind"),
        (r#"{"a": 3}"#, "header"),
        (
            r#"{"a": {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]},
             "a": {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]}}"#,
            "`a` appears twice",
        ),
        (
            r#"{"a": {"dtype": "F32", "shape": [6], "data_offsets": [0, 24]},
             "b": {"dtype": "F32", "shape": [2], "data_offsets": [16, 24]}}"#,
            "overlaps `a`",
        ),
        (
            r#"{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
             "b": {"dtype": "F32", "shape": [2], "data_offsets": [16, 24]}}"#,
            "leaves a gap behind `a`",
        ),
        (
            r#"{"a": {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]}}"#,
            "`a` ends at 32",
        ),
        (
            r#"{"a": {"dtype": "F32", "shape": [5], "data_offsets": [0, 24]}}"#,
            "not the size of F32 [5]",
        ),
        (
            r#"{"a": {"dtype": "F32", "shape": [6], "data_offsets": [24, 0]}}"#,
            "not the size of F32 [6]",
        ),
        (
            r#"{"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 24]}}"#,
            "not the size",
        ),
        (
            r#"{"a": {"dtype": "F32", "shape": [6], "data_offsets": [18446744073709551592, 18446744073709551616]}}"#,
            "header",
        ),
        (
            r#"{"a": {"dtype": "F32", "shape": [6], "data_offsets": [18446744073709551591, 18446744073709551615]}}"#,
            "`a`",
        ),
        (
            r#"{"a": {"dtype": "F31", "shape": [6], "data_offsets": [0, 24]}}"#,
            "dtype `F31`",
        ),
        (
            r#"{"a": {"dtype": "F32", "shape": [-6], "data_offsets": [0, 24]}}"#,
            "header",
        ),
        (
            r#"{"a": {"dtype": "I64", "shape": [3], "data_offsets": [0, 24]}}"#,
            "`a` has dtype I64",
        ),
    ];
    for (header, wanted) in cases {
        let path = folder.safetensors("x.safetensors", header, 24);
        assert_says(&refused(&path), &["x.safetensors", wanted]);
    }
    let deep = format!(r#"{{"a": {}"#, "[".repeat(1 << 20));
    assert_says(
        &refused(&folder.safetensors("x.safetensors", &deep, 0)),
        &["header"],
    );
}

#[test]
fn a_header_of_a_gigabyte() {
    let folder = Folder::new();
    let path = folder.write("x.safetensors", &(1_u64 << 30).to_le_bytes());
    assert_says(&refused(&path), &["1073741824 bytes"]);
    // And where the file is really that long.
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(3 << 30)
        .unwrap();
    assert_says(&refused(&path), &["1073741824 bytes, more than the"]);
    let path = folder.write("y.safetensors", &u64::MAX.to_le_bytes());
    assert_says(&refused(&path), &["18446744073709551615 bytes"]);
    // The longest that is read: as much JSON as fits, of the kind that takes most memory.
    let header = format!(
        r#"{{"a": {{"dtype": "F32", "shape": [{}0]}}}}"#,
        "0,".repeat((16 << 20) - 100)
    );
    assert_says(
        &refused(&folder.safetensors("z.safetensors", &header, 0)),
        &["z.safetensors"],
    );
}

#[test]
fn names_without_end() {
    let folder = Folder::new();
    let entry = |i: usize| {
        format!(
            r#""{i}": {{"dtype": "F32", "shape": [], "data_offsets": [{}, {}]}}"#,
            4 * i,
            4 * i + 4
        )
    };
    let many = (0..100_000).map(entry).collect::<Vec<_>>().join(",");
    let path = folder.safetensors("x.safetensors", &format!("{{{many}}}"), 399_999);
    assert_says(&refused(&path), &["`99999` ends at"]);
}

#[test]
fn things_that_are_no_files_of_weights() {
    let folder = Folder::new();
    assert_says(
        &refused(&folder.path("absent")),
        &["absent", "No such file"],
    );
    assert_says(&refused(folder.0.path()), &["no weights found"]);
    assert_says(
        &refused(Path::new("/dev/zero")),
        &["/dev/zero", "not a regular file"],
    );
    assert_says(&refused(&folder.write("empty", b"")), &["too few"]);
}
