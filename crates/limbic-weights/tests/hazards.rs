//! Damaged and hostile files: each an error that says what is wrong, within a second and in little memory.

mod common;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::memory_peak;
use limbic_weights::{Checkpoint, CounterRng};
use tempfile::TempDir;

/// Opens and reads everything, which must fail in time, and gives the message.
fn refused(path: &Path) -> String {
    let began = Instant::now();
    let result = Checkpoint::open(path).and_then(|checkpoint| checkpoint.weights());
    let took = began.elapsed();
    let message = result
        .expect_err("a hazard was read as weights")
        .to_string();
    assert!(took < Duration::from_secs(1), "{took:?}: {message}");
    let peak = memory_peak();
    assert!(peak < 512 << 20, "{peak} bytes: {message}");
    assert!(message.len() < 2000, "{message}");
    message
}

#[track_caller]
fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{part}` not in: {message}");
    }
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn safetensors(&self, name: &str, header: &str, bytes: usize) -> PathBuf {
        self.write(name, &safetensors(header, bytes))
    }

    fn torch(&self, pickle: &[u8], storage: &[u8]) -> PathBuf {
        self.write(
            "x.pth",
            &zip(&[("x/data.pkl", pickle), ("x/data/0", storage)]),
        )
    }
}

fn safetensors(header: &str, bytes: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.extend(vec![0; bytes]);
    file
}

const ONE: &str = r#"{"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}"#;

#[test]
fn truncated_files_and_shards() {
    let folder = Folder::new();
    let whole = safetensors(ONE, 24);
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

/// A zip archive of stored entries.
fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in entries {
        let start = file.len() as u32;
        let mut header = vec![0; 22];
        header[14..18].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        header[18..22].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        let lengths = [(name.len() as u16).to_le_bytes(), [0; 2]].concat();
        file.extend(
            [
                b"PK\x03\x04".as_slice(),
                &header,
                &lengths,
                name.as_bytes(),
                bytes,
            ]
            .concat(),
        );
        directory.extend(
            [
                b"PK\x01\x02\0\0".as_slice(),
                &header,
                &lengths,
                &[0; 10],
                &start.to_le_bytes(),
                name.as_bytes(),
            ]
            .concat(),
        );
    }
    let (start, size) = (file.len() as u32, directory.len() as u32);
    file.extend(directory);
    let count = (entries.len() as u16).to_le_bytes();
    file.extend([b"PK\x05\x06\0\0\0\0".as_slice(), &count, &count].concat());
    file.extend([size.to_le_bytes(), start.to_le_bytes()].concat());
    file.extend([0; 2]);
    file
}

/// A pickle `{"a": <tensor>}` of an F32 storage of `count` values.
fn tensor_pickle(count: u8, offset: u8, shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let tuple = |sizes: &[u8]| {
        let items = sizes.iter().flat_map(|n| [b'K', *n]);
        [b"(".to_vec(), items.collect(), b"t".to_vec()].concat()
    };
    let text = |text: &str| {
        [
            b"X".to_vec(),
            (text.len() as u32).to_le_bytes().to_vec(),
            text.into(),
        ]
        .concat()
    };
    let storage = [
        text("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        text("0"),
        text("cpu"),
        vec![b'K', count],
    ];
    [
        b"\x80\x02}".to_vec(),
        text("a"),
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        storage.concat(),
        b"tQ".to_vec(),
        vec![b'K', offset],
        tuple(shape),
        tuple(strides),
        b"\x89}tRs.".to_vec(),
    ]
    .concat()
}

#[test]
fn a_storage_smaller_than_the_tensor_says() {
    let folder = Folder::new();
    let path = folder.torch(&tensor_pickle(6, 0, &[2, 3], &[3, 1]), &[0; 24]);
    assert_eq!(
        Checkpoint::open(&path)
            .unwrap()
            .weights()
            .unwrap()
            .num_values(),
        6
    );
    for (pickle, wanted) in [
        (
            tensor_pickle(7, 0, &[2, 3], &[3, 1]),
            "`x/data/0` holds 24 bytes",
        ),
        (
            tensor_pickle(6, 1, &[2, 3], &[3, 1]),
            "does not lie within its storage of 6 values",
        ),
        (
            tensor_pickle(6, 0, &[2, 4], &[4, 1]),
            "does not lie within its storage of 6 values",
        ),
        (
            tensor_pickle(6, 0, &[2, 3], &[4, 1]),
            "does not lie within its storage of 6 values",
        ),
        (
            tensor_pickle(6, 0, &[200, 200, 200, 200, 200], &[0; 5]),
            "does not lie within its storage of 6 values",
        ),
        (
            tensor_pickle(6, 0, &[255; 16], &[255; 16]),
            "does not lie within its storage of 6 values",
        ),
        (tensor_pickle(6, 0, &[1; 17], &[1; 17]), "17 dimensions"),
        (tensor_pickle(6, 0, &[2, 3], &[1]), "differ in length"),
    ] {
        assert_says(
            &refused(&folder.torch(&pickle, &[0; 24])),
            &["x.pth", wanted],
        );
    }
    let path = folder.write(
        "y.pth",
        &zip(&[("x/data.pkl", &tensor_pickle(6, 0, &[6], &[1]))]),
    );
    assert_says(
        &refused(&path),
        &["lies in `x/data/0`, which the archive lacks"],
    );
}

#[test]
fn pickles_that_call_something() {
    let folder = Folder::new();
    for (module, name) in [
        ("os", "system"),
        ("posix", "system"),
        ("builtins", "eval"),
        ("__builtin__", "exec"),
        ("subprocess", "Popen"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("runpy", "run_path"),
    ] {
        let call = format!("c{module}\n{name}\nX\x15\0\0\0touch limbic-was-here").into_bytes();
        let mut pickle = b"\x80\x02".to_vec();
        pickle.extend([call, b"\x85R.".to_vec()].concat());
        let message = refused(&folder.torch(&pickle, &[]));
        assert_says(
            &message,
            &[&format!("`{module}.{name}`"), "nothing was executed"],
        );
    }
    // The same by protocol 4, by persistent id, by an instance, by an extension code and by a call of a plain value.
    for (pickle, wanted) in [
        (
            b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R.".to_vec(),
            "`os.system`",
        ),
        (
            b"\x80\x02X\x01\0\0\0aQ.".to_vec(),
            "a storage that is not described",
        ),
        (b"\x80\x02(ios\nsystem\n.".to_vec(), "instruction 0x69"),
        (b"\x80\x02(cos\nsystem\no.".to_vec(), "`os.system`"),
        (b"\x80\x02\x82\x01.".to_vec(), "instruction 0x82"),
        (b"\x80\x02N)R.".to_vec(), "a call of a plain value"),
        (
            b"\x80\x02ctorch\nFloatStorage\n)R.".to_vec(),
            "a call of Storage",
        ),
        (b"cos\nsystem\n.".to_vec(), "protocol 2 to 5"),
    ] {
        assert_says(&refused(&folder.torch(&pickle, &[])), &[wanted]);
    }
    assert!(!Path::new("limbic-was-here").exists());
}

#[test]
fn pickles_that_would_take_all_memory_time_or_stack() {
    let folder = Folder::new();
    let program = |body: &[u8], times: usize, end: &[u8]| {
        [b"\x80\x02".to_vec(), body.repeat(times), end.to_vec()].concat()
    };
    for (pickle, wanted) in [
        // A tuple in a tuple in a tuple.
        (program(b")", 1, &b"\x85".repeat(1_000_000)), "ends early"),
        (
            program(
                b")",
                1,
                &[b"\x85".repeat(1_000_000), b".".to_vec()].concat(),
            ),
            "nested deeper",
        ),
        // A list that holds itself.
        (b"\x80\x02]q\0h\0a.".to_vec(), "nested deeper"),
        // Thirty lists, each twice the one before.
        (
            program(
                b"]q\x01",
                1,
                &[b"]h\x01h\x01\x86q\x01".repeat(30), b".".to_vec()].concat(),
            ),
            "more than",
        ),
        (program(b"]", 3_000_000, b"."), "more than"),
        (program(b"N", 3_000_000, b"."), "a stack of more than"),
        (program(b"(", 3_000_000, b"."), "a stack of more than"),
        (program(b"N0", 10_000_000, b"."), "steps"),
        (program(b"X\xff\xff\xff\x7f", 1, b"."), "ends early"),
        (
            program(b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff", 1, b"."),
            "ends early",
        ),
        (program(b"\x8b\xff\xff\xff\xff", 1, b"."), "ends early"),
        (program(b"h\x05", 1, b"."), "never remembered"),
        (program(b"0", 1, b"."), "missing on the stack"),
        (program(b"(0", 1, b"."), "missing on the stack"),
        (program(b"t", 1, b"."), "a mark is missing"),
        (program(b"}(Nu", 1, b"."), "a key without a value"),
        (program(b"", 1, b""), "ends early"),
        (program(b"N", 1, b"."), "without a name"),
    ] {
        assert_says(&refused(&folder.torch(&pickle, &[])), &["x.pth", wanted]);
    }
    let many: Vec<u8> = (0..400_000_u32)
        .flat_map(|slot| [b"Nr".to_vec(), slot.to_le_bytes().to_vec(), b"0".to_vec()].concat())
        .collect();
    let pickle = program(&many, 1, b"N.");
    assert_says(&refused(&folder.torch(&pickle, &[])), &["without a name"]);
}

#[test]
fn archives_that_lie() {
    let folder = Folder::new();
    let pickle = tensor_pickle(6, 0, &[6], &[1]);
    let good = zip(&[("x/data.pkl", &pickle), ("x/data/0", &[0; 24])]);
    Checkpoint::open(&folder.write("good.pth", &good)).unwrap();
    for length in 4..good.len() {
        refused(&folder.write("cut.pth", &good[..length]));
    }
    let directory = good
        .windows(4)
        .position(|mark| mark == b"PK\x01\x02")
        .unwrap();
    let second = directory + 46 + "x/data.pkl".len();
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        bad
    };
    for (bad, wanted) in [
        (with(directory + 8, &[1]), "`x/data.pkl` is encrypted"),
        (with(directory + 10, &[8]), "`x/data.pkl` is compressed"),
        // A bomb: a small entry that says it unpacks to four gigabytes.
        (
            with(second + 24, &[0xfe, 0xff, 0xff, 0xff]),
            "`x/data/0` is compressed",
        ),
        (
            with(
                second + 20,
                &[0xfe, 0xff, 0xff, 0xff, 0xfe, 0xff, 0xff, 0xff],
            ),
            "not where the directory says",
        ),
        (
            with(second + 20, &[200, 0, 0, 0, 200, 0, 0, 0]),
            "not where the directory says",
        ),
        (with(second + 42, &[0; 4]), "not where the directory says"),
        (
            with(second + 42, &[0xff; 4]),
            "not where the directory says",
        ),
        (
            with(second + 42, &[0xf0, 0xff, 0xff, 0xff]),
            "not where the directory says",
        ),
        (with(8, &[8]), "not where the directory says"),
        (with(directory, b"PK\x01\x03"), "cut off or of another kind"),
        (with(good.len() - 6, &[0xff; 4]), "zip64"),
        (
            with(good.len() - 6, &[0xf0, 0xff, 0xff, 0xff]),
            "zip directory would have",
        ),
    ] {
        assert_says(
            &refused(&folder.write("bad.pth", &bad)),
            &["bad.pth", wanted],
        );
    }
    for (entries, wanted) in [
        (
            vec![
                ("x/data.pkl", &pickle[..]),
                ("x/data/0", &[0; 24]),
                ("x/data/0", &[0; 24]),
            ],
            "`x/data/0` appears twice",
        ),
        (
            vec![("x/data.pkl", &pickle[..]), ("y/data.pkl", &pickle)],
            "the one `data.pkl`",
        ),
        (vec![("x/model.json", &pickle[..])], "the one `data.pkl`"),
        (
            vec![
                ("x/data.pkl", &pickle[..]),
                ("x/data/0", &[0; 24]),
                ("x/byteorder", b"big"),
            ],
            "byte order is `big`",
        ),
    ] {
        assert_says(
            &refused(&folder.write("bad.pth", &zip(&entries))),
            &["bad.pth", wanted],
        );
    }
}

/// Bytes flipped, cut and repeated at random: an error or some weights, but no panic, and soon.
#[test]
fn damage_never_panics() {
    let folder = Folder::new();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/weights");
    let rng = CounterRng::new(5).site("damage");
    let mut read = 0;
    for (number, name) in [
        "views.pth",
        "dtypes.pth",
        "protocol_4.pth",
        "training.pth",
        "views.safetensors",
    ]
    .iter()
    .enumerate()
    {
        let whole = fs::read(golden.join(name)).unwrap();
        for round in 0..400 {
            let rng = rng.index(number as u64).index(round);
            let mut bytes = whole.clone();
            for flip in 0..1 + rng.bits(0) % 4 {
                let at = rng.bits(2 * flip + 1) as usize % bytes.len();
                bytes[at] = match rng.bits(2 * flip + 2) % 4 {
                    0 => 0,
                    1 => 0xff,
                    other => bytes[at] ^ (other as u8) << (rng.bits(flip + 90) % 7),
                };
            }
            if rng.bits(50) % 10 == 0 {
                bytes.truncate(rng.bits(51) as usize % bytes.len());
            }
            let path = folder.write("damaged", &bytes);
            let began = Instant::now();
            let result = Checkpoint::open(&path).map(|checkpoint| {
                let names: Vec<String> = checkpoint.names().map(str::to_string).collect();
                for name in names {
                    let _ = checkpoint.data(&name, None);
                }
            });
            read += usize::from(result.is_ok());
            assert!(
                began.elapsed() < Duration::from_secs(1),
                "{name}, round {round}"
            );
        }
    }
    assert!(
        read > 0 && read < 2000,
        "{read} of 2000 were read: the damage is none, or hits one place only"
    );
}
