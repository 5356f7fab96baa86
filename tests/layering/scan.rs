//! Reads one source file as tokens, as the compiler does, so that comments and strings do not count.
//! Finds what each module in the file declares and which paths it uses. Resolves no path: that is the
//! task of `tree`.

use std::collections::BTreeSet;
use std::rc::Rc;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// The segments of a path. In [`Scope::module`], the first one is the name of the crate.
pub(crate) type Segments = Vec<String>;

/// One branch of a `use`.
#[derive(Clone, Debug)]
pub(crate) struct Import {
    pub(crate) path: Segments,
    /// The name that it has here; `None` for `*`.
    pub(crate) name: Option<String>,
    /// With `pub` in any form.
    pub(crate) is_reexport: bool,
}

/// The code that one file has in one module. Code that is compiled for tests only (or fuzzing, or
/// model checking) has a scope of its own, also in the middle of a module.
#[derive(Debug, Default)]
pub(crate) struct Scope {
    pub(crate) file: String,
    pub(crate) module: Segments,
    pub(crate) is_test: bool,
    pub(crate) imports: Vec<Import>,
    /// Paths of two segments or more that are used outside of `use`.
    pub(crate) paths: BTreeSet<Segments>,
    /// Names that are used outside of `use` and not after a dot, and the first segments of paths.
    pub(crate) words: BTreeSet<String>,
    /// What the module itself declares, except modules.
    pub(crate) items: BTreeSet<String>,
    /// The types among the items, and types that are declared inside of functions.
    pub(crate) types: Vec<String>,
    pub(crate) macros: BTreeSet<String>,
    pub(crate) macros_used: BTreeSet<String>,
}

/// A `mod name;`, whose code is in another file.
#[derive(Debug)]
pub(crate) struct Declared {
    pub(crate) module: Segments,
    pub(crate) is_test: bool,
    /// The inline modules around it, which are a part of its directory.
    pub(crate) within: Vec<String>,
    /// From `#[path = …]`.
    pub(crate) path: Option<String>,
    /// From `#[cfg_attr(…, path = …)]`, and whether its condition holds for tests only.
    pub(crate) other_path: Option<(String, bool)>,
}

#[derive(Debug, Default)]
pub(crate) struct Scanned {
    pub(crate) scopes: Vec<Scope>,
    pub(crate) declared: Vec<Declared>,
}

/// Whether an item that is declared here belongs to the module, or is inside of another item.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    Module,
    Inside,
}

/// A position in a list of tokens. A clone of it looks ahead.
#[derive(Clone)]
struct Tokens {
    all: Rc<[TokenTree]>,
    at: usize,
}

impl Iterator for Tokens {
    type Item = TokenTree;

    fn next(&mut self) -> Option<TokenTree> {
        let token = self.peek().cloned();
        self.at += 1;
        token
    }
}

impl Tokens {
    fn of(tokens: impl IntoIterator<Item = TokenTree>) -> Self {
        Self { all: tokens.into_iter().collect(), at: 0 }
    }

    fn peek(&self) -> Option<&TokenTree> {
        self.all.get(self.at)
    }

    fn next_if(&mut self, is_wanted: impl FnOnce(&TokenTree) -> bool) -> Option<TokenTree> {
        if self.peek().is_some_and(is_wanted) { self.next() } else { None }
    }

    /// Whether these two characters are next.
    fn begins_with(&self, one: char, other: char) -> bool {
        let is_there =
            |at: usize, c: char| self.all.get(self.at + at).is_some_and(|token| is_punct(token, c));
        is_there(0, one) && is_there(1, other)
    }
}

/// What attributes say about the item after them.
#[derive(Default)]
struct Attributes {
    is_test: bool,
    path: Option<String>,
    other_path: Option<(String, bool)>,
}

/// Scans the code of `file`, whose module is `module`.
pub(crate) fn scan(file: &str, module: &[String], is_test: bool, code: &str) -> Scanned {
    let tokens: TokenStream = code.parse().unwrap_or_else(|error| panic!("{file}: {error}"));
    let mut scanned = Scanned::default();
    let scope = scanned.scope(file, module, is_test);
    scanned.walk(tokens, scope, Level::Module, &[]);
    scanned
}

impl Scanned {
    /// The scope of this module, which is added if it does not exist yet.
    fn scope(&mut self, file: &str, module: &[String], is_test: bool) -> usize {
        let is_same = |scope: &Scope| scope.module == module && scope.is_test == is_test;
        self.scopes.iter().position(is_same).unwrap_or_else(|| {
            let (file, module) = (file.to_owned(), module.to_vec());
            self.scopes.push(Scope { file, module, is_test, ..Scope::default() });
            self.scopes.len() - 1
        })
    }

    fn walk(&mut self, stream: TokenStream, outer: usize, level: Level, within: &[String]) {
        let mut tokens = Tokens::of(stream);
        let mut scope = outer;
        let mut attributes = Attributes::default();
        // The last two tokens as text; a group is "".
        let mut last = [String::new(), String::new()];
        let mut is_public = false;
        while let Some(token) = tokens.next() {
            let text = match &token {
                TokenTree::Group(_) => String::new(),
                other => other.to_string(),
            };
            let mut ends_item = false;
            match token {
                TokenTree::Punct(_) if text == "#" => {
                    let is_inner = tokens.next_if(|token| is_punct(token, '!')).is_some();
                    if let Some(TokenTree::Group(group)) = tokens.next() {
                        let found = self.attribute(&group, scope);
                        if !is_inner {
                            attributes.is_test |= found.is_test;
                            attributes.path = found.path.or(attributes.path);
                            attributes.other_path = found.other_path.or(attributes.other_path);
                        }
                    }
                    if attributes.is_test {
                        let Scope { file, module, .. } = &self.scopes[outer];
                        scope = self.scope(&file.clone(), &module.clone(), true);
                    }
                    continue;
                }
                TokenTree::Punct(_)
                    if text == ":" && tokens.peek().is_some_and(|token| is_punct(token, ':')) =>
                {
                    tokens.next();
                    // After a type in angle brackets, this continues its path.
                    if last[1] == ">" {
                        tokens.next_if(|token| matches!(token, TokenTree::Ident(_)));
                    }
                }
                TokenTree::Punct(_) => ends_item = text == ";" || text == "," && level == Level::Inside,
                // The path in `pub(in …)` says where the item is visible; it is not a use.
                TokenTree::Group(group) if last[1] == "pub" && is_visibility(&group) => continue,
                TokenTree::Group(group) => {
                    let is_brace = group.delimiter() == Delimiter::Brace;
                    let declares = last[1] == "!" || last[1] == "extern" || last[0] == "extern";
                    let inner =
                        if level == Level::Module && is_brace && declares { level } else { Level::Inside };
                    self.walk(group.stream(), scope, inner, within);
                    ends_item = is_brace;
                }
                TokenTree::Ident(_) if text == "use" => {
                    let is_capture = tokens.peek().is_some_and(|token| is_punct(token, '<'));
                    if !is_capture {
                        let branches = tokens.by_ref().take_while(|token| !is_punct(token, ';'));
                        let found = branches_of(branches.collect(), &[], is_public);
                        self.scopes[scope].imports.extend(found);
                        ends_item = true;
                    }
                }
                TokenTree::Ident(_) if text == "mod" => {
                    self.module(&mut tokens, scope, within, std::mem::take(&mut attributes));
                    ends_item = true;
                }
                TokenTree::Ident(_) => {
                    // After one dot; two dots are a range.
                    let is_member = last[1] == "." && last[0] != ".";
                    self.word(text.clone(), &mut tokens, scope, level, is_member);
                }
                TokenTree::Literal(_) => {}
            }
            is_public = text == "pub";
            if ends_item {
                (scope, attributes) = (outer, Attributes::default());
            }
            let [_, newer] = std::mem::take(&mut last);
            last = [newer, text];
        }
    }

    /// What an attribute says about its item. A string that names a function or a module for serde is
    /// a use.
    fn attribute(&mut self, group: &Group, scope: usize) -> Attributes {
        let mut tokens = Tokens::of(group.stream());
        let name = tokens.next().map(|token| token.to_string()).unwrap_or_default();
        let all: Vec<TokenTree> = tokens.collect();
        let mut found = Attributes::default();
        match name.as_str() {
            "cfg" => found.is_test = is_for_tests(&group.stream()),
            "path" => found.path = all.iter().find_map(literal),
            "cfg_attr" => {
                let Some(TokenTree::Group(inner)) = all.first() else { return found };
                let inner: Vec<TokenTree> = inner.stream().into_iter().collect();
                let is_path = |token: &TokenTree| matches!(token, TokenTree::Ident(ident) if ident == "path");
                if let Some(at) = inner.iter().position(is_path) {
                    let condition = inner[..at].iter().cloned().collect();
                    let path = inner[at..].iter().find_map(literal);
                    found.other_path = path.map(|path| (path, is_for_tests(&condition)));
                }
            }
            "serde" => {
                let mut texts = Vec::new();
                gather_literals(group.stream(), &mut texts);
                for text in texts {
                    let path: Segments = text.split("::").map(str::to_owned).collect();
                    if path.iter().all(|segment| is_identifier(segment)) {
                        // It may be a module, whose functions serde calls.
                        self.scopes[scope].paths.insert([path, vec!["*".to_owned()]].concat());
                    }
                }
            }
            _ => {}
        }
        found
    }

    fn module(&mut self, tokens: &mut Tokens, scope: usize, within: &[String], attributes: Attributes) {
        let Some(TokenTree::Ident(name)) = tokens.next() else { return };
        let name = name.to_string();
        let Scope { file, module, is_test, .. } = &self.scopes[scope];
        let (file, module) = (file.clone(), [module.as_slice(), std::slice::from_ref(&name)].concat());
        let is_test = *is_test || attributes.is_test;
        match tokens.next() {
            Some(TokenTree::Group(group)) => {
                let inner = self.scope(&file, &module, is_test);
                self.walk(group.stream(), inner, Level::Module, &[within, &[name]].concat());
            }
            _ => {
                let Attributes { path, other_path, .. } = attributes;
                self.declared.push(Declared { module, is_test, within: within.to_vec(), path, other_path });
            }
        }
    }

    /// A word outside of `use`: it begins a declaration or a path, or is a name alone.
    fn word(&mut self, word: String, tokens: &mut Tokens, scope: usize, level: Level, is_member: bool) {
        const TYPES: [&str; 5] = ["struct", "enum", "trait", "union", "type"];
        const ITEMS: [&str; 3] = ["fn", "const", "static"];
        let scope = &mut self.scopes[scope];
        let is_type = TYPES.contains(&word.as_str());
        if is_type || ITEMS.contains(&word.as_str()) {
            let is_name = |token: &TokenTree| match token {
                TokenTree::Ident(name) => {
                    let keywords = ["fn", "unsafe", "extern", "async", "mut", "move"];
                    !keywords.contains(&name.to_string().as_str())
                }
                _ => false,
            };
            let Some(name) = tokens.next_if(is_name).map(|name| name.to_string()) else { return };
            if level == Level::Module {
                scope.items.insert(name.clone());
            }
            // Functions may declare types, too. But inside of an item, a `type` is associated with a
            // trait, and `union` is a name like others.
            if is_type && (level == Level::Module || !["type", "union"].contains(&word.as_str())) {
                scope.types.push(name);
            }
            return;
        }
        let mut path = vec![word];
        while tokens.begins_with(':', ':') {
            let mut ahead = tokens.clone();
            ahead.next();
            ahead.next();
            let Some(TokenTree::Ident(next)) = ahead.next() else { break };
            path.push(next.to_string());
            *tokens = ahead;
        }
        let is_invoked = tokens.peek().is_some_and(|token| is_punct(token, '!'));
        if is_invoked && path == ["macro_rules"] {
            tokens.next();
            if let Some(TokenTree::Ident(name)) = tokens.next() {
                scope.macros.insert(name.to_string());
                scope.items.insert(name.to_string());
            }
            return;
        }
        if is_member {
            return;
        }
        if is_invoked && path.len() == 1 {
            scope.macros_used.insert(path[0].clone());
        }
        if !["crate", "self", "super", "Self"].contains(&path[0].as_str()) {
            scope.words.insert(path[0].clone());
        }
        if path.len() > 1 {
            scope.paths.insert(path);
        }
    }
}

/// The branches of a `use`: `a::{b::C, self, d as e, *}`, after the segments `base`.
fn branches_of(tokens: Vec<TokenTree>, base: &[String], is_reexport: bool) -> Vec<Import> {
    let mut found = Vec::new();
    for branch in tokens.split(|token| is_punct(token, ',')) {
        let (mut path, mut alias, mut is_group) = (base.to_vec(), None, false);
        let mut tokens = Tokens::of(branch.iter().cloned());
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Ident(word) if word == "as" => alias = tokens.next().map(|name| name.to_string()),
                TokenTree::Ident(word) if word == "self" && !path.is_empty() => {}
                TokenTree::Ident(word) => path.push(word.to_string()),
                TokenTree::Punct(punct) if punct.as_char() == '*' => {
                    found.push(Import { path: path.clone(), name: None, is_reexport });
                    is_group = true;
                }
                TokenTree::Group(group) => {
                    found.extend(branches_of(group.stream().into_iter().collect(), &path, is_reexport));
                    is_group = true;
                }
                _ => {}
            }
        }
        if let Some(last) = path.last().filter(|_| !is_group) {
            let name = Some(alias.unwrap_or_else(|| last.clone()));
            found.push(Import { path, name, is_reexport });
        }
    }
    found
}

/// Whether a condition holds only in builds for tests, fuzzing or model checking.
fn is_for_tests(condition: &TokenStream) -> bool {
    let words = words(condition);
    let is_special = ["test", "doctest", "fuzzing", "explore"].iter().any(|special| words.contains(*special));
    is_special && !words.contains("not")
}

/// Every word in these tokens.
fn words(tokens: &TokenStream) -> BTreeSet<String> {
    let mut words = BTreeSet::new();
    for token in tokens.clone() {
        match token {
            TokenTree::Group(group) => words.extend(self::words(&group.stream())),
            TokenTree::Ident(ident) => drop(words.insert(ident.to_string())),
            TokenTree::Punct(_) | TokenTree::Literal(_) => {}
        }
    }
    words
}

fn gather_literals(tokens: TokenStream, into: &mut Vec<String>) {
    for token in tokens {
        match &token {
            TokenTree::Group(group) => gather_literals(group.stream(), into),
            other => into.extend(literal(other)),
        }
    }
}

/// The content of a string.
fn literal(token: &TokenTree) -> Option<String> {
    let TokenTree::Literal(literal) = token else { return None };
    literal.to_string().strip_prefix('"')?.strip_suffix('"').map(str::to_owned)
}

fn is_identifier(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
}

/// Whether this group, which follows `pub`, says where an item is visible.
fn is_visibility(group: &Group) -> bool {
    let first = group.stream().into_iter().next().map(|first| first.to_string());
    let words = ["in", "crate", "super", "self"];
    group.delimiter() == Delimiter::Parenthesis && first.is_some_and(|first| words.contains(&first.as_str()))
}

fn is_punct(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}
