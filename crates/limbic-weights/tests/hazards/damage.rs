use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use limbic_weights::{Checkpoint, CounterRng};

use super::Folder;

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
        for round in 0..150 {
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
            if rng.bits(50).is_multiple_of(10) {
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
        read > 0 && read < 750,
        "{read} of 750 were read: the damage is none, or hits one place only"
    );
}
