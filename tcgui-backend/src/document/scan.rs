//! Scans a JSON5 text for the depth of its nesting and for the positions of values.
//!
//! This is not a parser: it also accepts texts that are not JSON5. Up to the place where the parser would fail, it must
//! never find less nesting than the parser.

use json5::char::{is_json5_line_terminator, is_json5_whitespace};

use super::PathSegment;

/// The kind of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Open,
    Close,
    Comma,
    Colon,
    /// A string, a name, a number or other text.
    Text,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'a> {
    kind: Kind,
    at: usize,
    text: &'a str,
}

/// The tokens of a text, without white space and comments.
pub(super) struct Tokens<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Returns the position of the first token after the first value. `None`: there is none.
    pub(super) fn after_first_value(mut self) -> Option<usize> {
        self.skip_value();
        self.next().map(|token| token.at)
    }

    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_blank(&mut self) {
        loop {
            let rest = self.rest();
            let blank = rest.trim_start_matches(is_json5_whitespace);
            self.at += rest.len() - blank.len();
            let length = if blank.starts_with("//") {
                blank.find(is_json5_line_terminator)
            } else if let Some(comment) = blank.strip_prefix("/*") {
                comment.find("*/").map(|end| end + 4)
            } else {
                return;
            };
            self.at += length.unwrap_or(blank.len());
        }
    }

    /// Returns the length of a string that begins with this quote. Without a closing quote, it ends with the text.
    fn string(rest: &str, quote: char) -> usize {
        let mut escaped = false;
        for (index, c) in rest.char_indices().skip(1) {
            if escaped {
                escaped = false;
            } else if c == '\\' {
                escaped = true;
            } else if c == quote {
                return index + 1;
            }
        }
        rest.len()
    }

    /// Skips the next value.
    fn skip_value(&mut self) {
        let mut open = 0_usize;
        for token in self.by_ref() {
            match token.kind {
                Kind::Open => open += 1,
                Kind::Close => open = open.saturating_sub(1),
                Kind::Comma | Kind::Colon | Kind::Text => {}
            }
            if open == 0 {
                return;
            }
        }
    }

    fn peek(&mut self) -> Option<Token<'a>> {
        let at = self.at;
        let token = self.next();
        self.at = at;
        token
    }

    /// Moves to the start of the value of a path segment. Returns whether it exists.
    fn enter(&mut self, turn: &PathSegment) -> bool {
        let opens = |token: Token<'_>| token.kind == Kind::Open;
        if !self.next().is_some_and(opens) {
            return false;
        }
        let mut index = 0;
        loop {
            let found = match turn {
                PathSegment::Element(wanted) => index == *wanted,
                PathSegment::Member(wanted) => match (self.next(), self.next()) {
                    (Some(name), Some(colon)) if colon.kind == Kind::Colon => {
                        name.text.trim_matches(['"', '\'']) == wanted
                    }
                    _ => return false,
                },
            };
            match self.peek() {
                None => return false,
                Some(token) if token.kind == Kind::Close => return false,
                Some(_) if found => return true,
                Some(_) => self.skip_value(),
            }
            index += 1;
            if !self.next().is_some_and(|token| token.kind == Kind::Comma) {
                return false;
            }
        }
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_blank();
        let rest = self.rest();
        let (kind, length) = match rest.chars().next()? {
            '{' | '[' => (Kind::Open, 1),
            '}' | ']' => (Kind::Close, 1),
            ',' => (Kind::Comma, 1),
            ':' => (Kind::Colon, 1),
            quote @ ('"' | '\'') => (Kind::Text, Self::string(rest, quote)),
            // Here a slash that does not begin a comment is a token. For the parser it is an error.
            first => {
                let length = first.len_utf8();
                let ends = |c| is_json5_whitespace(c) || "{}[],:\"'/".contains(c);
                let more = rest[length..].find(ends);
                (Kind::Text, more.map_or(rest.len(), |more| length + more))
            }
        };
        let token = Token {
            kind,
            at: self.at,
            text: &rest[..length],
        };
        self.at += length;
        Some(token)
    }
}

/// Checks that the nesting is at most `limit`. The error is the position of the first deeper level.
pub(super) fn depth(text: &str, limit: usize) -> Result<(), usize> {
    let mut open = 0_usize;
    for token in Tokens::new(text) {
        match token.kind {
            Kind::Open => open += 1,
            Kind::Close => open = open.saturating_sub(1),
            Kind::Comma | Kind::Colon | Kind::Text => {}
        }
        if open > limit {
            return Err(token.at);
        }
    }
    Ok(())
}

/// Returns the position of the value at the end of a path, and how many segments of the path exist in the text.
pub(super) fn find(text: &str, turns: &[PathSegment]) -> (usize, usize) {
    let mut tokens = Tokens::new(text);
    let mut at = tokens.peek().map_or(0, |token| token.at);
    for (count, turn) in turns.iter().enumerate() {
        if !tokens.enter(turn) {
            return (at, count);
        }
        at = tokens.peek().map_or(at, |token| token.at);
    }
    (at, turns.len())
}
