use super::*;

fn tokenizer() -> TextTokenizer {
    TextTokenizer::train(
        &["Face Voice Words which of happy sad Answer".to_string()],
        300,
    )
    .unwrap()
}

fn config() -> PromptConfig {
    PromptConfig {
        template: [
            "Face: <video>",
            "Voice: <audio>",
            "Words: {transcript}",
            "{instruction}",
            "Answer:",
        ]
        .map(String::from)
        .to_vec(),
        instructions: [(Task::Emotion, vec!["Which of {labels}?".to_string()])].into(),
    }
}

fn slot(input: &str, tokens: usize) -> Slot {
    Slot {
        input: input.into(),
        placeholder: format!("<{input}>"),
        tokens,
        optional: false,
    }
}

fn compiler() -> PromptCompiler {
    PromptCompiler::new(
        config(),
        vec![slot("video", 4), slot("audio", 2)],
        &["happy", "sad"],
    )
    .unwrap()
}

fn show(compiled: &Compiled, tokenizer: &TextTokenizer) -> String {
    let show = |segment: &Segment| match segment {
        Segment::Text(ids) => tokenizer.decode(ids).unwrap(),
        Segment::Media { input, tokens } => format!("[{input}x{tokens}]"),
    };
    compiled.prompt.iter().map(show).collect()
}

#[test]
fn a_full_turn_reads_as_written() {
    let (compiler, tokenizer) = (compiler(), tokenizer());
    let instruction = compiler.instructions(Task::Emotion).unwrap().remove(0);
    let turn = Turn {
        instruction: &instruction,
        transcript: Some(" I won! "),
        answer: Some("happy"),
    };
    let compiled = compiler.compile(&turn, &[true, true], &tokenizer).unwrap();
    assert_eq!(
        show(&compiled, &tokenizer),
        "Face: [0x4]\nVoice: [1x2]\nWords: I won!\nWhich of happy, sad?\nAnswer:"
    );
    assert_eq!(tokenizer.decode(&compiled.answer).unwrap(), " happy");
    assert_eq!(compiled.answer.last(), Some(&tokenizer.eos));
    assert_eq!(
        compiled.length(),
        compiled.prompt_length() + compiled.answer.len()
    );
    let asked = Turn {
        answer: None,
        ..turn
    };
    assert_eq!(
        compiler
            .compile(&asked, &[true, true], &tokenizer)
            .unwrap()
            .prompt,
        compiled.prompt
    );
}

#[test]
fn an_absent_medium_takes_its_line_with_it() {
    let (compiler, tokenizer) = (compiler(), tokenizer());
    let turn = Turn {
        instruction: "Why?",
        transcript: None,
        answer: None,
    };
    let compiled = compiler.compile(&turn, &[false, true], &tokenizer).unwrap();
    assert_eq!(show(&compiled, &tokenizer), "Voice: [1x2]\nWhy?\nAnswer:");
    assert!(compiled.answer.is_empty());
}

#[test]
fn media_that_do_not_match_the_slots_are_refused() {
    let (compiler, tokenizer) = (compiler(), tokenizer());
    let turn = Turn {
        instruction: "Look at <video>",
        transcript: None,
        answer: None,
    };
    let message = compiler
        .compile(&turn, &[true, true], &tokenizer)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("`<video>`") && message.contains("instruction"),
        "{message}"
    );
    let turn = Turn {
        instruction: "Why?",
        ..turn
    };
    assert!(compiler.compile(&turn, &[true], &tokenizer).is_err());
}

#[test]
fn a_transcript_cannot_act_as_a_template() {
    let (compiler, tokenizer) = (compiler(), tokenizer());
    let turn = Turn {
        instruction: "Why?",
        transcript: Some("{instruction} </s>"),
        answer: None,
    };
    let compiled = compiler
        .compile(&turn, &[false, false], &tokenizer)
        .unwrap();
    assert_eq!(
        show(&compiled, &tokenizer),
        "Words: {instruction} </s>\nWhy?\nAnswer:"
    );
}

#[test]
fn unusable_templates_are_refused() {
    let build = |template: &[&str], slots: Vec<Slot>| {
        let template = template.iter().map(|line| line.to_string()).collect();
        let config = PromptConfig {
            template,
            ..config()
        };
        PromptCompiler::new(config, slots, &[])
            .unwrap_err()
            .to_string()
    };
    assert!(build(&["Answer:"], vec![]).contains("{instruction}"));
    assert!(build(&["{instruction}"], vec![slot("video", 1)]).contains("0 times"));
    let twice = build(&["<audio> <audio> {instruction}"], vec![slot("audio", 1)]);
    assert!(twice.contains("2 times"), "{twice}");
    let bare = Slot {
        placeholder: "VIDEO".into(),
        ..slot("video", 1)
    };
    assert!(build(&["VIDEO {instruction}"], vec![bare]).contains("wanted one like <video>"));
    let same = vec![
        slot("video", 1),
        Slot {
            input: "face".into(),
            ..slot("video", 1)
        },
    ];
    assert!(build(&["<video> {instruction}"], same).contains("same placeholder"));
}

#[test]
fn media_of_one_line_do_not_need_each_other() {
    let tokenizer = tokenizer();
    let template = ["Media: <video> <audio>", "{instruction}"]
        .map(String::from)
        .to_vec();
    let config = PromptConfig {
        template,
        ..config()
    };
    let both = vec![slot("video", 4), slot("audio", 2)];
    let turn = Turn {
        instruction: "Why?",
        transcript: None,
        answer: None,
    };
    let read = |slots: Vec<Slot>, present: &[bool]| {
        let compiler = PromptCompiler::new(config.clone(), slots, &[]).unwrap();
        show(
            &compiler.compile(&turn, present, &tokenizer).unwrap(),
            &tokenizer,
        )
    };
    assert_eq!(
        read(both.clone(), &[true, true]),
        "Media: [0x4] [1x2]\nWhy?"
    );
    assert_eq!(read(both.clone(), &[false, true]), "Media:  [1x2]\nWhy?");
    assert_eq!(read(both.clone(), &[false, false]), "Why?");
    assert_eq!(read(both[1..].to_vec(), &[true]), "Media: [0x2]\nWhy?");
}

#[test]
fn an_input_that_others_read_may_have_no_place() {
    let tokenizer = tokenizer();
    let optional = Slot {
        optional: true,
        ..slot("touch", 3)
    };
    let placeless = slot("audio", 0);
    let slots = vec![slot("video", 4), placeless, optional.clone()];
    let compiler = PromptCompiler::new(config(), slots, &["happy"]).unwrap();
    let turn = Turn {
        instruction: "Why?",
        transcript: Some(" happy "),
        answer: None,
    };
    let compiled = compiler
        .compile(&turn, &[true, true, true], &tokenizer)
        .unwrap();
    assert_eq!(
        show(&compiled, &tokenizer),
        "Face: [0x4]\nWords: happy\nWhy?\nAnswer:"
    );
    assert_eq!(tokenizer.decode(&compiled.transcript).unwrap(), "happy");
    let twice = PromptConfig {
        template: vec!["<touch> <touch> {instruction}".into()],
        ..config()
    };
    let error = PromptCompiler::new(twice, vec![optional], &[]).unwrap_err();
    assert!(error.to_string().contains("2 times"), "{error}");
}

#[test]
fn a_line_for_an_input_that_is_not_in_use_is_left_out() {
    let tokenizer = tokenizer();
    let compiler = PromptCompiler::new(config(), vec![slot("audio", 2)], &["happy"]).unwrap();
    let turn = Turn {
        instruction: "Why, if 1 < 2 > 0?",
        transcript: None,
        answer: None,
    };
    let compiled = compiler.compile(&turn, &[true], &tokenizer).unwrap();
    assert_eq!(
        show(&compiled, &tokenizer),
        "Voice: [0x2]\nWhy, if 1 < 2 > 0?\nAnswer:"
    );
}
