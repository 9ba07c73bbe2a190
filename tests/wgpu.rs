//! A device that is no CPU to the program, though it may be one in software: scripts/test-wgpu.sh.

#![expect(
    clippy::print_stderr,
    reason = "a test says why it skips, and this one what it found"
)]

use serde_json::Value;

use crate::workplace::{Workplace, losses, stage1};

/// The first Vulkan device, one in software if there is one.
fn device(workplace: &Workplace) -> Option<String> {
    let said = workplace.command(&["doctor", "--json"]).output().unwrap();
    let report: Value = serde_json::from_slice(&said.stdout).unwrap();
    let devices = report["devices"].as_array().unwrap().iter();
    let names: Vec<&str> = devices
        .map(|device| device["name"].as_str().unwrap())
        .collect();
    let wanted = |name: &&&str| name.starts_with("wgpu");
    let in_software = names.iter().find(|name| **name == "wgpu:cpu");
    in_software
        .or(names.iter().find(wanted))
        .map(|name| name.to_string())
}

#[test]
fn wgpu_trains_as_the_cpu_does() {
    let workplace = Workplace::new();
    let Some(device) = device(&workplace) else {
        // scripts/test-wgpu.sh has seen a driver and is there for this test alone.
        assert!(
            std::env::var_os("LIMBIC_TEST_WGPU").is_none(),
            "no Vulkan driver finds a device; see what `limbic doctor` says"
        );
        eprintln!("skipped: no Vulkan device");
        return;
    };
    let said = workplace
        .run(&["doctor", "--device", &device, "--json"])
        .succeeded();
    let report: Value = serde_json::from_str(&said.stdout).unwrap();
    let findings = report["devices"][0]["findings"].as_array().unwrap();
    for check in ["matmul", "step"] {
        let finding = findings.iter().find(|finding| finding["check"] == check);
        let difference = finding.and_then(|finding| finding["difference"].as_f64());
        eprintln!("{device}: {check}: {difference:?}");
        assert!(difference.unwrap() < 1e-4, "{report}");
    }

    // Scratch decoder, projectors and a fusion, through the whole program.
    workplace.write_recipe("stage1", &stage1(3));
    for (name, devices) in [("here", "cpu:1"), ("there", &device)] {
        let name = format!("name={name}");
        let quiet = "evaluation={every: 0}";
        workplace
            .run(&["train", "stage1.yaml", &name, quiet, "--devices", devices])
            .succeeded();
    }
    let (here, there) = (losses(&workplace, "here"), losses(&workplace, "there"));
    assert_eq!(here.len(), 3);
    eprintln!("losses on cpu {here:?}, on {device} {there:?}");
    for (here, there) in here.iter().zip(&there) {
        assert!((here - there).abs() < 1e-4 * here, "{here} {there}");
    }
}
