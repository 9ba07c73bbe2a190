use std::fmt::Write;
use std::path::PathBuf;

use anyhow::Context;
use limbic_eval::{Scores, table};
use limbic_train::{Model, RunDir, SplitScores};
use serde_json::{Value, json};

use crate::args::EvalArgs;
use crate::device;

pub(crate) fn run(args: &EvalArgs) -> anyhow::Result<()> {
    let devices = device::parse(&args.devices)?;
    let say = |line: &str| eprintln!("{line}");
    let model = Model::open(&args.run, &devices, device::suits(&devices), &say)?;
    let scores = model.score(args.data.as_deref(), args.split, args.max_bad, &say);
    for problem in model.cache_problems() {
        say(&problem);
    }
    let scores = scores?;
    // The run keeps what it achieves on its own data; a score on other data goes to the screen.
    let run = model.run.as_ref().filter(|_| args.data.is_none());
    let kept = run.map(|run| keep(run, &scores)).transpose()?;
    if args.json {
        println!("{}", summary(&scores));
        return Ok(());
    }
    print!("{}", report(&scores));
    if let Some(folder) = kept {
        println!("\nanswers and scores: {}", folder.display());
    }
    Ok(())
}

fn keep(run: &RunDir, scores: &SplitScores) -> anyhow::Result<PathBuf> {
    let name = format!("eval/{}", scores.split);
    let folder = run.path(&name);
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let mut predictions = String::new();
    for prediction in &scores.predictions {
        writeln!(predictions, "{}", serde_json::to_string(prediction)?)?;
    }
    let mut quarantine = String::new();
    for clip in &scores.bad {
        writeln!(quarantine, "{}", serde_json::to_string(clip)?)?;
    }
    let scores = serde_json::to_string_pretty(scores)? + "\n";
    run.write_file(&format!("{name}/predictions.jsonl"), &predictions)?;
    run.write_file(&format!("{name}/quarantine.jsonl"), &quarantine)?;
    run.write_file(&format!("{name}/scores.json"), &scores)?;
    Ok(folder)
}

fn summary(scores: &SplitScores) -> Value {
    let of = |scores: &Scores| {
        json!({
            "n": scores.n,
            "accuracy": scores.accuracy,
            "uar": scores.uar,
            "weighted_f1": scores.weighted_f1,
            "macro_f1": scores.macro_f1,
            "unparsed_rate": scores.unparsed_rate,
        })
    };
    json!({
        "manifest": scores.manifest,
        "split": scores.split,
        "n": scores.n,
        "quarantined": scores.quarantined,
        "unlabelled": scores.unlabelled,
        "too_long": scores.too_long,
        "unjudged": scores.unjudged,
        "text": scores.text.as_ref().map(of),
        "head": scores.head.as_ref().map(of),
        "valence": scores.valence,
        "majority": scores.majority.as_ref().map(of),
        "interval95": scores.interval,
    })
}

fn report(scores: &SplitScores) -> String {
    let mut lines = format!(
        "split {}: {} clips scored, {} quarantined, {} without a known label, {} too long, {} without an input that a head reads\n\n{:<18} {:>8} {:>8} {:>8} {:>8} {:>9}\n",
        scores.split,
        scores.n,
        scores.quarantined,
        scores.unlabelled,
        scores.too_long,
        scores.unjudged,
        "",
        "accuracy",
        "uar",
        "w-f1",
        "macro-f1",
        "unparsed"
    );
    let rows = [
        ("generated text", scores.text.as_ref()),
        ("class head", scores.head.as_ref()),
        ("majority baseline", scores.majority.as_ref()),
    ];
    for (name, scores) in rows {
        if let Some(s) = scores {
            lines += &format!(
                "{name:<18} {:>8.4} {:>8.4} {:>8.4} {:>8.4} {:>9.4}\n",
                s.accuracy, s.uar, s.weighted_f1, s.macro_f1, s.unparsed_rate
            );
        }
    }
    if let Some(v) = &scores.valence {
        lines += &format!(
            "valence of {} clips: mse {:.4}, mae {:.4}, pearson {:.4}, ccc {:.4}\n",
            v.n, v.mse, v.mae, v.pearson, v.ccc
        );
    }
    let (name, judged) = match (&scores.text, &scores.head) {
        (Some(text), _) => ("generated text", text),
        (None, Some(head)) => ("class head", head),
        (None, None) => return lines,
    };
    let Some(interval) = &scores.interval else {
        return lines;
    };
    lines += &format!(
        "\n95 % interval of the {name}: accuracy {:.4} to {:.4}, uar {:.4} to {:.4}\n\n{name}:\n{}",
        interval.accuracy.low,
        interval.accuracy.high,
        interval.uar.low,
        interval.uar.high,
        table(judged)
    );
    lines
}
