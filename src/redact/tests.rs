use super::*;
use proptest::prelude::*;

fn check(text: &str, expected: &str) {
    let redactor = Redactor::new([
        "s3cr3t value",
        "a-longer-secret-than-what-the-automaton-knows",
        "tiny",
        "päss\"wörd",
    ]);
    let black = redactor.text(text);
    assert_eq!(black, expected, "of {text}");
    assert_eq!(redactor.text(&black), expected, "a second time");
}

fn unchanged(text: &str) {
    check(text, text);
    assert!(matches!(Redactor::of_forms().text(text), Cow::Borrowed(_)), "copied: {text}");
}

#[test]
fn values_are_blacked_out_wherever_they_stand() {
    check("s3cr3t value", "[redacted]");
    check("it is S3CR3T VALUE, twice: s3cr3t values3cr3t value.", "it is [redacted], twice: [redacted].");
    check("a-longer-secret-than-what-the-automaton-knows!", "[redacted]!");
    check("a-longer-secret-than-what…", "[redacted]…");
    check("GET /x?y=s3cr3t%20value HTTP/1.1", "GET /x?y=[redacted] HTTP/1.1");
    check(r#"{"x":"päss\"wörd"} päss"wörd"#, r#"{"x":"[redacted]"} [redacted]"#);
    // Too short a value, too little of one.
    unchanged("tiny a-longer-secret-of another kind s3cr3t");
}

#[test]
fn lines_of_a_value_are_values() {
    let redactor = Redactor::new(["-----BEGIN-----\nMIIabcdefgh\n\nx\n"]);
    assert_eq!(redactor.text("key: MIIabcdefgh x"), "key: [redacted] x");
}

#[test]
fn tokens_are_known_by_their_form() {
    check("token hf_abcdefghijklmnopqrstuvwxyz0123456789 is bad", "token [redacted] is bad");
    check("(sk-proj-abcdefghijklmnop0123_x)", "([redacted])");
    unchanged("pip install hf_transfer hf_hub_download_x xhf_abcdefghijklmnopqrstuvwxyz");
    unchanged("task-0123456789abcdefghijkl sk-learn-extensions-of-old");
}

#[test]
fn what_is_assigned_to_the_name_of_a_secret_is_blacked_out() {
    for (text, expected) in [
        ("vllm serve --api-key abc123 --port 1", "vllm serve --api-key [redacted] --port 1"),
        ("--api-key=abc --x", "--api-key=[redacted] --x"),
        ("['--api-key', 'abc', '-x']", "['--api-key', '[redacted]', '-x']"),
        ("--api-key one,two three", "--api-key [redacted] three"),
        ("VLLM_API_KEY=abc,", "VLLM_API_KEY=[redacted],"),
        ("{'api_key': ['abc', 'def'], 'port': 1}", "{'api_key': [redacted], 'port': 1}"),
        (r#"{"api_key":"a b","x":1}"#, r#"{"api_key":"[redacted]","x":1}"#),
        (r#""{\"api_key\":\"a b\",\"x\":1}""#, r#""{\"api_key\":\"[redacted]\",\"x\":1}""#),
        ("x-api-key: abc", "x-api-key: [redacted]"),
        ("Authorization: Basic dXNlcjpw, next", "Authorization: Basic [redacted], next"),
        ("'authorization': 'Bearer abc'", "'authorization': 'Bearer [redacted]'"),
        ("Authorization: abc", "Authorization: [redacted]"),
        ("sent Bearer abc.def", "sent Bearer [redacted]"),
        ("password = \"two words\" ok", "password = \"[redacted]\" ok"),
        ("HF_TOKEN=abc", "HF_TOKEN=[redacted]"),
        ("GET /v1?token=abc&key=def&x=1", "GET /v1?token=[redacted]&key=[redacted]&x=1"),
    ] {
        check(text, expected);
    }
    unchanged("Namespace(api_key_file='x') token: 5 EOG token = 128001 key=3 max_tokens=4 api-key-file x");
    unchanged("the password must be set; api_key is missing");
    unchanged("api_key=");
}

#[test]
fn user_and_password_of_a_url_are_blacked_out() {
    check("http://user:pass@host:80/x@y", "http://[redacted]@host:80/x@y");
    check("\"https://t0ken@host\"", "\"https://[redacted]@host\"");
    unchanged("http://host/a@b file:///x@y http://[::1]:80");
}

#[test]
fn a_cut_line_keeps_no_more_than_a_few_bytes_of_a_secret() {
    let redactor = Redactor::new(["s3cr3t value"]);
    let cut = |text: &str| String::from_utf8(redactor.cut_off(text.as_bytes()).into_owned()).unwrap();
    assert_eq!(cut("x s3cr3t valu"), "x [redacted]");
    assert_eq!(cut("x s3cr"), "x [redacted]");
    assert_eq!(cut("x s3c"), "x s3c");
    assert_eq!(cut("x hf_abcd"), "x [redacted]");
    assert_eq!(cut("x hf"), "x hf");
}

#[test]
fn text_that_a_secret_may_go_on_behind_is_open() {
    let redactor = Redactor::new(["0123456789"]);
    for open in [
        "x 0",
        "x 012345678",
        "hf_abc",
        "sk-1",
        "--api-key",
        "api_key=",
        "api_key=ab",
        "Bearer ",
        "http://user:",
    ] {
        assert!(redactor.is_open(open.as_bytes()), "{open}");
    }
    for closed in
        ["x", "", "Loading weights ...", "api_key=ab ok", "x 0123456789", "http://host/", "Bearer ab ok"]
    {
        assert!(!redactor.is_open(closed.as_bytes()), "{closed}");
    }
}

#[test]
fn names_and_flags_tell_secrets() {
    for name in ["HF_TOKEN", "VLLM_API_KEY", "my-secret", "db.password", "SMTP_PASS", "hf-token"] {
        assert!(names_a_secret(name), "{name}");
    }
    for name in
        ["TOKENIZERS_PARALLELISM", "MAX_TOKENS", "SSL_KEY_FILE", "HF_TOKEN_PATH", "KEYBOARD", "PATH", ""]
    {
        assert!(!names_a_secret(name), "{name}");
    }
    let args = ["--api-key", "one", "--x", "--hf-token=two", "-hft", "three", "--key"].map(str::to_owned);
    assert_eq!(in_arguments(&args).collect::<Vec<_>>(), ["one", "two", "three"]);
}

#[test]
fn nothing_of_it_is_printed() {
    assert!(!format!("{:?}", Redactor::new(["s3cr3t value"])).contains("s3cr3t"));
}

/// Pieces that forms and values are made of, in any order.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[ -~]{0,12}",
        "\\PC{0,4}",
        proptest::sample::select(FORMS.iter().map(|(mark, _)| (*mark).to_owned()).collect::<Vec<_>>()),
        proptest::sample::select(
            ["=", ": ", " ", "\"", "'", "\\\"", "[", "]", "@", ",", "&", "user:pw@", "Basic ", "[redacted]"]
                .map(str::to_owned)
                .to_vec()
        ),
        "[a-z0-9]{16,20}",
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_value_survives_whole_and_a_second_pass_changes_nothing(
        values in proptest::collection::vec("[a-zA-Z0-9_./+-]{6,40}", 1..4),
        texts in proptest::collection::vec(text(), 1..5),
    ) {
        let redactor = Redactor::new(&values);
        let planted: String = texts.iter().zip(values.iter().cycle()).map(|(text, value)| format!("{text}{value}")).collect();
        let black = redactor.text(&planted).into_owned();
        for value in values.iter().filter(|value| is_sought(value)) {
            prop_assert!(!black.contains(value.as_str()), "{value} is left in {black}");
        }
        prop_assert_eq!(redactor.text(&black), black.as_str());
    }

    #[test]
    fn no_bytes_make_it_panic(text in proptest::collection::vec(any::<u8>(), 0..200), value in "\\PC{0,30}") {
        let redactor = Redactor::new([value]);
        let _ = (redactor.bytes(&text), redactor.cut_off(&text), redactor.is_open(&text));
    }

    #[test]
    fn wherever_a_line_is_cut_few_bytes_of_a_value_are_left(value in "[a-z0-9]{6,40}", before in text(), len in 0_usize..40) {
        let redactor = Redactor::new([&value]);
        let whole = format!("{before}{value}");
        let cut = &whole.as_bytes()[..before.len() + len.min(value.len())];
        let black = redactor.cut_off(cut);
        prop_assert!(len < TELLING_AT_CUT || !is_sought(&value) || black.ends_with(BLACK.as_bytes()), "{black:?}");
    }
}

#[test]
fn a_value_that_is_learnt_later_is_blacked_out_too() {
    let redactor = Redactor::new(["first-value"]);
    let text = "a first-value, a second-value and a third-value";
    assert_eq!(redactor.text(text), "a [redacted], a second-value and a third-value");
    redactor.learn("second-value");
    redactor.learn("third-value");
    assert_eq!(redactor.text(text), "a [redacted], a [redacted] and a [redacted]");
    let mut covered = text.as_bytes().to_vec();
    redactor.cover(&mut covered);
    assert!(!String::from_utf8_lossy(&covered).contains("value") && redactor.has_value(text.as_bytes()));
    assert_eq!(redactor.begun_value(b"and third-va"), 8);
}
