//! Files that PyTorch wrote (scripts/golden/pickles.py), bit for bit.

use std::path::{Path, PathBuf};

use limbic_weights::{Checkpoint, StoredDtype};
use safetensors::SafeTensors;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/golden/weights")
        .join(name)
}

/// Compares a `.pth` with the safetensors file beside it, which the safetensors crate reads.
fn assert_same_bits(name: &str) -> Checkpoint {
    let bytes = std::fs::read(golden(&format!("{name}.safetensors"))).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let checkpoint = Checkpoint::open(&golden(&format!("{name}.pth"))).unwrap();
    let mut names = expected.names();
    names.sort();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), names);
    let mut floats = 0;
    for (name, view) in expected.iter() {
        assert_eq!(checkpoint.shape(name), Some(view.shape()), "{name}");
        let dtype = checkpoint.dtype(name).unwrap();
        assert_eq!(
            format!("{dtype:?}").to_uppercase(),
            format!("{:?}", view.dtype()).to_uppercase(),
            "{name}"
        );
        if dtype.is_float() {
            let data = checkpoint.data(name, None).unwrap();
            assert_eq!(data.as_bytes(), view.data(), "{name}");
            floats += 1;
        } else {
            let message = checkpoint.data(name, None).unwrap_err().to_string();
            assert!(
                message.contains(&format!("`{name}` has dtype {dtype}")),
                "{message}"
            );
        }
    }
    assert!(floats > 0);
    checkpoint
}

#[test]
fn shared_transposed_and_sliced_storages_are_read_as_torch_does() {
    assert_same_bits("views");
}

#[test]
fn every_dtype_keeps_its_bits() {
    let checkpoint = assert_same_bits("dtypes");
    assert_eq!(checkpoint.dtype("bf16"), Some(StoredDtype::BF16));
    assert_eq!(checkpoint.dtype("parameter"), Some(StoredDtype::BF16));
}

#[test]
fn every_protocol_is_read() {
    for protocol in 3..=5 {
        assert_same_bits(&format!("protocol_{protocol}"));
    }
}

#[test]
fn a_training_checkpoint_yields_its_tensors_and_counts_the_rest() {
    let checkpoint = assert_same_bits("training");
    let passed_over = checkpoint.passed_over();
    assert!(passed_over > 20, "{passed_over}");
    let model = checkpoint
        .ignore(
            |name| name.starts_with("optimizer."),
            "state of an optimizer",
        )
        .ignore(
            |name| name.ends_with("num_batches_tracked"),
            "counts batches",
        )
        .strip_prefix("model.")
        .unwrap();
    assert_eq!(model.shape("0.weight"), Some(&[3, 5][..]));
    assert!(model.names().all(|name| !name.contains("optimizer")));
}

#[test]
fn precisions_are_converted_as_torch_does() {
    let checkpoint = Checkpoint::open(&golden("dtypes.pth")).unwrap();
    // Every kind was made from the same F32 values.
    for (name, precision) in [
        ("f16", burn::tensor::FloatDType::F16),
        ("bf16", burn::tensor::FloatDType::BF16),
        ("f64", burn::tensor::FloatDType::F64),
    ] {
        let converted = checkpoint.data("f32", Some(precision)).unwrap();
        let stored = checkpoint.data(name, None).unwrap();
        assert_eq!(converted.as_bytes(), stored.as_bytes(), "{name}");
        let from_double = checkpoint.data("f64", Some(precision)).unwrap();
        assert_eq!(from_double.as_bytes(), stored.as_bytes(), "{name}");
    }
    let widened = checkpoint
        .data("bf16", Some(burn::tensor::FloatDType::F32))
        .unwrap();
    let words = widened
        .as_bytes()
        .chunks_exact(4)
        .map(|b| u32::from_le_bytes(b.try_into().unwrap()));
    let bf16 = checkpoint.data("bf16", None).unwrap();
    let halves = bf16
        .as_bytes()
        .chunks_exact(2)
        .map(|b| u32::from(u16::from_le_bytes(b.try_into().unwrap())) << 16);
    assert!(words.eq(halves));
}

#[test]
fn files_that_want_something_called_are_refused_by_name() {
    for (name, wanted) in [
        ("os_system", "`posix.system`"),
        ("eval", "`__builtin__.eval`"),
        ("getattr", "`__builtin__.getattr`"),
        ("class", "`torch.nn.modules.linear.Linear`"),
    ] {
        let path = golden(&format!("hostile_{name}.pth"));
        let message = Checkpoint::open(&path).unwrap_err().to_string();
        assert!(message.contains(wanted), "{message}");
        assert!(message.contains("nothing was executed"), "{message}");
        assert!(
            message.contains(&format!("hostile_{name}.pth")),
            "{message}"
        );
    }
    assert!(!Path::new("limbic-was-here").exists());
}

#[test]
fn files_of_before_1_6_are_refused_with_the_way_out() {
    let message = Checkpoint::open(&golden("legacy.pth"))
        .unwrap_err()
        .to_string();
    assert!(message.contains("before 1.6"), "{message}");
    assert!(message.contains("torch.save"), "{message}");
}
