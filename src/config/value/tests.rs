use super::*;

fn parsed<T>(text: &str, parse: impl Fn(&Given<'_>) -> Result<T, Wrong>) -> Result<T, String> {
    let value = DeValue::parse(text).expect("a TOML value");
    parse(&Given::new("key", 0, &value)).map_err(|wrong| wrong.what)
}

#[test]
fn durations_are_a_whole_number_and_a_unit() {
    let any = duration(Duration::ZERO..=Duration::from_secs(7200));
    for (text, expected) in [
        (r#""250ms""#, Ok(250)),
        (r#""10s""#, Ok(10_000)),
        (r#""5m""#, Ok(300_000)),
        (r#""2h""#, Ok(7_200_000)),
        (r#""0s""#, Ok(0)),
        (r#""3h""#, Err("`key` is \"3h\", which is out of range")),
        (r#""1.5s""#, Err("`key` is \"1.5s\", which is no duration")),
        (r#""10 s""#, Err("`key` is \"10 s\", which is no duration")),
        (r#""10""#, Err("`key` is \"10\", which is no duration")),
        (r#""s""#, Err("`key` is \"s\", which is no duration")),
        (r#""-1s""#, Err("`key` is \"-1s\", which is no duration")),
        (r#""1h30m""#, Err("`key` is \"1h30m\", which is no duration")),
        (r#""99999999999999999999s""#, Err("`key` is \"99999999999999999999s\", which is no duration")),
        (r#""18446744073709551615h""#, Err("`key` is \"18446744073709551615h\", which is no duration")),
        ("10", Err("`key` is an integer")),
        ("1.5", Err("`key` is a float")),
    ] {
        let millis = parsed(text, &any).map(|duration| duration.as_millis());
        assert_eq!(millis, expected.map_err(str::to_owned), "{text}");
    }
}

#[test]
fn sizes_are_a_whole_number_and_a_binary_unit() {
    let any = size(1024..=8 << 30);
    for (text, expected) in [
        (r#""64KiB""#, Ok(65_536)),
        (r#""32MiB""#, Ok(33_554_432)),
        (r#""8GiB""#, Ok(8 << 30)),
        (r#""2048B""#, Ok(2048)),
        (r#""9GiB""#, Err("`key` is \"9GiB\", which is out of range")),
        (r#""1B""#, Err("`key` is \"1B\", which is out of range")),
        (r#""32MB""#, Err("`key` is \"32MB\", which is no size")),
        (r#""32""#, Err("`key` is \"32\", which is no size")),
        ("32", Err("`key` is an integer")),
        ("true", Err("`key` is a boolean")),
    ] {
        assert_eq!(parsed(text, &any), expected.map_err(str::to_owned), "{text}");
    }
}

#[test]
fn numbers_stay_within_their_range() {
    for (text, expected) in [
        ("-20", Ok(-20)),
        ("19", Ok(19)),
        ("0x10", Ok(16)),
        ("20", Err("`key` is 20, which is out of range")),
        ("-21", Err("`key` is -21, which is out of range")),
        ("99999999999999999999", Err("`key` is 99999999999999999999, which is out of range")),
        ("1.0", Err("`key` is a float")),
        (r#""1""#, Err("`key` is a string")),
    ] {
        assert_eq!(parsed(text, whole(-20..=19)), expected.map_err(str::to_owned), "{text}");
    }
    for (text, expected) in [
        ("0", Ok(0.0)),
        ("0.7", Ok(0.7)),
        ("2.0", Ok(2.0)),
        ("2.1", Err("`key` is 2.1, which is out of range")),
        ("nan", Err("`key` is nan, which is out of range")),
        ("-1", Err("`key` is -1, which is out of range")),
        (r#""0""#, Err("`key` is a string")),
    ] {
        assert_eq!(parsed(text, number(0.0..=2.0)), expected.map_err(str::to_owned), "{text}");
    }
}

#[test]
fn remedies_spell_limits_as_they_are_typed() {
    for (millis, expected) in
        [(0, "0s"), (1, "1ms"), (1_000, "1s"), (90_000, "90s"), (120_000, "2m"), (86_400_000, "24h")]
    {
        assert_eq!(spelled(Duration::from_millis(millis)), expected);
    }
    for (bytes, expected) in
        [(0, "0KiB"), (100, "100B"), (1024, "1KiB"), (4 << 30, "4GiB"), (3 << 19, "1536KiB")]
    {
        assert_eq!(bytes_spelled(bytes), expected);
    }
}

#[test]
fn typed_text_is_clipped_and_escaped_in_messages() {
    assert_eq!(clipped("a\nb"), "a\\nb");
    assert_eq!(clipped(&"é".repeat(80)), format!("{}…", "é".repeat(60)));
}
