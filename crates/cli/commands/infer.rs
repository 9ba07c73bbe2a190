use limbic_data::Clip;
use limbic_llama::Sampling;
use limbic_train::Model;

use crate::args::InferArgs;
use crate::device;

pub(crate) fn run(args: &InferArgs) -> anyhow::Result<()> {
    let devices = device::parse(&args.devices)?;
    let say = |line: &str| eprintln!("{line}");
    let model = Model::open(&args.run, &devices, device::suits(&devices), &say)?;
    let clip = Clip {
        id: args.clip.display().to_string(),
        video: Some(args.clip.clone()),
        transcript: args.transcript.clone(),
        ..Clip::default()
    };
    let sampling = Sampling {
        temperature: args.temperature,
        top_p: args.top_p,
        seed: args.seed,
    };
    let answer = model.ask(&clip, &args.question, &sampling);
    for problem in model.cache_problems() {
        eprintln!("{problem}");
    }
    let answer = answer?;
    if args.json {
        println!("{}", serde_json::to_string(&answer)?);
        return Ok(());
    }
    for input in &answer.absent {
        eprintln!("note: the file has nothing for input `{input}`, which was left out");
    }
    if model.artifact.config.transcript && args.transcript.is_none() {
        eprintln!("note: no --transcript was given, so the words were left out");
    }
    let prediction = &answer.prediction;
    match &prediction.label {
        Some(label) => println!("emotion    {label}"),
        None => match (&prediction.answer, &prediction.head_label) {
            (Some(answer), _) => println!("emotion    (unparsed: {answer:?})"),
            (None, Some(label)) => println!("emotion    {label}"),
            (None, None) => {}
        },
    }
    let mut probabilities: Vec<_> = prediction.probabilities.iter().collect();
    probabilities.sort_by(|a, b| b.1.total_cmp(a.1));
    for (label, probability) in probabilities {
        let bar = "#".repeat((probability * 30.0).round() as usize);
        println!("  {label:<10} {probability:>6.3} {bar}");
    }
    if let Some(valence) = prediction.valence {
        println!("valence    {valence:.3}");
    }
    if let Some(rationale) = &answer.rationale {
        println!("rationale  {rationale}");
    }
    for answered in &answer.answers {
        println!("question   {}", answered.question);
        println!("answer     {}", answered.answer);
    }
    Ok(())
}
