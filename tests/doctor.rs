//! `limbic doctor`: what the machine has, and whether devices compute rightly.

use serde_json::Value;

use crate::workplace::Workplace;

#[test]
fn the_cpu_works_and_says_how_well() {
    let workplace = Workplace::new();
    let said = workplace.run(&["doctor", "--json"]).succeeded();
    let report: Value = serde_json::from_str(&said.stdout).unwrap();
    assert!(report["machine"]["threads"].as_u64().unwrap() >= 1);
    assert!(report["machine"]["ffmpeg"]["release"].as_u64().unwrap() >= 5);
    let devices = report["devices"].as_array().unwrap();
    let cpu = devices.iter().find(|device| device["name"] == "cpu");
    let cpu = cpu.unwrap_or_else(|| panic!("no cpu in {report}"));
    assert_eq!(cpu["works"], true, "{cpu}");
    let findings = cpu["findings"].as_array().unwrap();
    let difference = |check: &str| {
        let finding = findings.iter().find(|finding| finding["check"] == check);
        let finding = finding.unwrap_or_else(|| panic!("no {check} in {cpu}"));
        finding["difference"].as_f64().unwrap()
    };
    // F32 has 24 significant bits, a slope from two losses about four digits, BF16 8 bits.
    assert!(difference("matmul") < 1e-5);
    assert!(difference("step") < 1e-2);
    let bf16 = difference("step_bf16");
    assert!(bf16 > 1e-5 && bf16 < 5e-2, "{bf16}");

    let table = workplace.run(&["doctor", "--device", "cpu"]).succeeded();
    for part in [
        "--devices cpu works",
        "training step",
        "bf16 step",
        "libavcodec",
    ] {
        assert!(table.stdout.contains(part), "{part}: {}", table.stdout);
    }
}

#[test]
fn a_device_that_does_not_work_is_told_without_a_panic() {
    let workplace = Workplace::new();
    let parts = ["--devices npu", "does not work"];
    let said = workplace
        .run(&["doctor", "--device", "npu"])
        .failed(1, &parts);
    assert!(said.stdout.contains("wanted cpu"), "{}", said.stdout);
    // An index that no machine has, whether GPUs are built in or not.
    let said = workplace
        .run(&["doctor", "--device", "cuda:63", "--json"])
        .failed(1, &["cuda:63"]);
    let report: Value = serde_json::from_str(&said.stdout).unwrap();
    let finding = &report["devices"][0]["findings"][0];
    assert_eq!(
        (&finding["check"], &finding["works"]),
        (&Value::from("open"), &Value::from(false))
    );
    let detail = finding["detail"].as_str().unwrap();
    assert!(detail.contains("cuda"), "{detail}");
    // A trial that takes too long is ended.
    let said = workplace
        .run(&["doctor", "--device", "cpu", "--timeout", "0"])
        .failed(1, &["cpu"]);
    assert!(said.stdout.contains("no answer in 0 s"), "{}", said.stdout);
    // So is asking which devices there are, and a CPU that was never tried does not work.
    let said = workplace
        .run(&["doctor", "--timeout", "0"])
        .failed(1, &["`--devices cpu` does not work"]);
    assert!(
        said.stdout.contains("devices of cpu cannot be listed"),
        "{}",
        said.stdout
    );
}

#[test]
fn each_device_of_a_list_is_tried() {
    let workplace = Workplace::new();
    let said = workplace
        .run(&["doctor", "--device", "cuda:62,63", "--json"])
        .failed(1, &["cuda:62"]);
    let report: Value = serde_json::from_str(&said.stdout).unwrap();
    let devices = report["devices"].as_array().unwrap();
    let names: Vec<&Value> = devices.iter().map(|device| &device["name"]).collect();
    assert_eq!(names, ["cuda:62", "cuda:63"]);
    // Nothing is said of a toolkit where cuda is not built in.
    let told = report["notes"].to_string();
    assert!(
        cfg!(feature = "cuda") || !told.contains("toolkit"),
        "{told}"
    );
}
