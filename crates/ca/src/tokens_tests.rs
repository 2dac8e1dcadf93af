//! Tests of [`super`]: what a token can be used for, and how often.
#![allow(clippy::unwrap_used)]

use super::*;
use std::time::UNIX_EPOCH;

const HOUR: Duration = Duration::from_secs(3600);
const KEY: [u8; 32] = [1; 32];
const OTHER_KEY: [u8; 32] = [2; 32];

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn id(account: &str) -> SpiffeId {
    SpiffeId::new("cluster.local", "shop", account).unwrap()
}

#[test]
fn a_token_is_good_for_one_key_only() {
    let tokens = JoinTokens::new(10);
    let token = tokens.mint(id("a"), HOUR, now()).unwrap();
    assert_eq!(tokens.redeem(&token, &KEY, now()), Ok(id("a")));
    assert_eq!(
        tokens.redeem(&token, &KEY, now()),
        Ok(id("a")),
        "an answer that was lost can be asked for again"
    );
    assert_eq!(tokens.redeem(&token, &OTHER_KEY, now()), Err(TokenError::Spent { identity: id("a") }));
}

#[test]
fn a_token_expires() {
    let tokens = JoinTokens::new(10);
    let token = tokens.mint(id("a"), HOUR, now()).unwrap();
    assert!(matches!(tokens.redeem(&token, &KEY, now() + HOUR), Err(TokenError::Expired { .. })));
    let reusable = tokens.mint_reusable(id("a"), HOUR, now()).unwrap();
    assert!(matches!(tokens.verify(&reusable, now() + HOUR), Err(TokenError::Expired { .. })));
}

#[test]
fn only_a_reusable_token_stands_for_a_session() {
    let tokens = JoinTokens::new(10);
    let (once, reusable) =
        (tokens.mint(id("a"), HOUR, now()).unwrap(), tokens.mint_reusable(id("b"), HOUR, now()).unwrap());
    assert!(matches!(tokens.verify(&once, now()), Err(TokenError::NotReusable { .. })));
    for key in [KEY, OTHER_KEY] {
        assert_eq!(tokens.verify(&reusable, now()), Ok(id("b")));
        assert_eq!(tokens.redeem(&reusable, &key, now()), Ok(id("b")));
    }
}

#[test]
fn an_invented_token_is_unknown() {
    let tokens = JoinTokens::new(10);
    assert_eq!(tokens.redeem("", &KEY, now()), Err(TokenError::Unknown));
    assert_eq!(tokens.verify(&random_token().unwrap(), now()), Err(TokenError::Unknown));
}

#[test]
fn the_number_of_tokens_is_bounded_and_expired_ones_make_room() {
    let tokens = JoinTokens::new(2);
    tokens.mint(id("a"), HOUR, now()).unwrap();
    tokens.mint(id("b"), HOUR * 2, now()).unwrap();
    assert_eq!(tokens.mint(id("c"), HOUR, now()), Err(TokenError::Full { capacity: 2 }));
    tokens.mint(id("c"), HOUR, now() + HOUR).unwrap();
}

#[test]
fn a_spent_token_stays_spent_when_its_file_is_read_again() {
    let tokens = JoinTokens::new(10);
    let line = TokenLine { token: random_token().unwrap(), identity: id("a"), reusable: false };
    let file = format!("{}\n", line.to_json());
    let (lines, errors) = parse_lines(&file);
    assert_eq!((lines.as_slice(), errors.len()), (&[line.clone()][..], 0));
    assert_eq!(tokens.merge(lines.clone(), now()), Ok(1));
    tokens.redeem(&line.token, &KEY, now()).unwrap();
    assert_eq!(tokens.merge(lines, now()), Ok(0));
    assert!(matches!(tokens.redeem(&line.token, &OTHER_KEY, now()), Err(TokenError::Spent { .. })));
}

#[test]
fn a_token_taken_off_its_file_is_no_longer_known_and_one_minted_here_is() {
    let tokens = JoinTokens::new(3);
    let line = |name| TokenLine { token: random_token().unwrap(), identity: id(name), reusable: true };
    let (gone, stays) = (line("a"), line("b"));
    let minted = tokens.mint_reusable(id("c"), HOUR, now()).unwrap();
    tokens.replace_listed(vec![gone.clone(), stays.clone()], now()).unwrap();
    tokens.replace_listed(vec![stays.clone(), line("d")], now()).unwrap();
    assert_eq!(tokens.verify(&gone.token, now()), Err(TokenError::Unknown));
    assert_eq!(tokens.verify(&stays.token, now()), Ok(id("b")));
    assert_eq!(tokens.verify(&minted, now()), Ok(id("c")));
}

#[test]
fn bad_lines_are_named_and_the_rest_counts() {
    let good = TokenLine { token: random_token().unwrap(), identity: id("a"), reusable: true }.to_json();
    let text = format!(
        "{good}\n\nnonsense\n{{\"token\":\"short\",\"identity\":\"spiffe://td/ns/a/sa/b\"}}\n\
         {{\"token\":\"0123456789abcdef\",\"identity\":\"nobody\"}}\n{{\"token\":\"0123"
    );
    let (lines, errors) = parse_lines(&text);
    assert_eq!(lines.len(), 1);
    assert_eq!(
        errors.iter().map(|e| e.line).collect::<Vec<_>>(),
        [3, 4, 5],
        "the unfinished last line is no error"
    );
    assert!(!errors.iter().any(|e| e.to_string().contains("0123456789abcdef")), "tokens are not repeated");
}

#[test]
fn debug_output_hides_tokens() {
    let line = TokenLine { token: "0123456789abcdef".to_owned(), identity: id("a"), reusable: false };
    assert!(!format!("{line:?}").contains("0123"));
}
