use std::path::{Path, PathBuf};

use limbic_weights::Checkpoint;

use super::{Folder, assert_says, refused};

impl Folder {
    fn torch(&self, pickle: &[u8], storage: &[u8]) -> PathBuf {
        let entries = [("x/data.pkl", pickle), ("x/data/0", storage)];
        self.write("x.pth", &zip(&entries))
    }
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
