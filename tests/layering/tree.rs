//! The modules of a source tree, and which items the paths in them mean. A path is followed through
//! imports and re-exports to the file that defines the item. So an import from a parent that only
//! re-exports the name is not a use of the parent.

use std::collections::{BTreeMap, BTreeSet};

use crate::scan::{Declared, Import, Scope, Segments, scan};

/// A tree of modules. Its roots are `lib.rs` and `main.rs`.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) scopes: Vec<Scope>,
    /// Each module, with its scopes.
    modules: BTreeMap<Segments, Vec<usize>>,
}

/// The root files, each with the name of its crate.
const ROOTS: [(&str, &str); 2] = [("lib.rs", LIBRARY), ("main.rs", "main")];
const LIBRARY: &str = "lockd";

/// Where an item is defined, or which module a path names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    pub(crate) module: Segments,
    /// `None` for the module itself.
    pub(crate) item: Option<String>,
}

/// For each file the files that it uses, each with one of the paths that use it.
pub(crate) type Edges = BTreeMap<String, BTreeMap<String, String>>;

impl Tree {
    /// Reads a tree from its files, which are given by their paths from its root.
    ///
    /// # Errors
    /// If a file belongs to no module, or a module has no file.
    pub(crate) fn new(files: &BTreeMap<String, String>) -> Result<Self, String> {
        let mut tree = Self { scopes: Vec::new(), modules: BTreeMap::new() };
        let mut seen = BTreeSet::new();
        for (file, name) in ROOTS {
            if files.contains_key(file) {
                tree.add(files, &mut seen, file.to_owned(), vec![name.to_owned()], false)?;
            }
        }
        match files.keys().find(|file| !seen.contains(*file)) {
            Some(file) => Err(format!("{file} is in no module")),
            None => Ok(tree),
        }
    }

    fn add(
        &mut self,
        files: &BTreeMap<String, String>,
        seen: &mut BTreeSet<String>,
        file: String,
        module: Segments,
        is_test: bool,
    ) -> Result<(), String> {
        let code = files.get(&file).ok_or_else(|| format!("there is no {file}"))?;
        let scanned = scan(&file, &module, is_test, code);
        seen.insert(file.clone());
        for scope in scanned.scopes {
            self.modules.entry(scope.module.clone()).or_default().push(self.scopes.len());
            self.scopes.push(scope);
        }
        for declared in scanned.declared {
            for (child, is_test) in files_of(files, &file, &declared) {
                self.add(files, seen, child, declared.module.clone(), is_test)?;
            }
        }
        Ok(())
    }

    fn scopes_of(&self, module: &[String]) -> impl Iterator<Item = &Scope> {
        self.modules.get(module).into_iter().flatten().map(|&index| &self.scopes[index])
    }

    /// What a path in this module means; nothing if it is outside of these crates.
    pub(crate) fn targets(&self, module: &[String], path: &[String]) -> BTreeSet<Target> {
        let Some(absolute) = absolute(module, path) else { return BTreeSet::new() };
        let found = self.resolve(&absolute, &mut BTreeSet::new());
        let first = path.first().map_or("", String::as_str);
        let is_of_library = first == LIBRARY && module[0] != LIBRARY;
        if !found.is_empty() || !is_of_library && !["crate", "self", "super"].contains(&first) {
            return found;
        }
        // A macro declares the item, so its name is unknown. It belongs to the path's last module.
        let depth = (1..absolute.len()).rev().find(|&depth| self.modules.contains_key(&absolute[..depth]));
        let target =
            |depth: usize| Target { module: absolute[..depth].to_vec(), item: absolute.get(depth).cloned() };
        depth.map(target).into_iter().collect()
    }

    fn resolve(&self, path: &[String], seen: &mut BTreeSet<Segments>) -> BTreeSet<Target> {
        let mut found = BTreeSet::new();
        if !seen.insert(path.to_vec()) {
            return found;
        }
        // The longest beginning of the path that is a module.
        let Some(depth) =
            (1..=path.len()).take_while(|&depth| self.modules.contains_key(&path[..depth])).last()
        else {
            return found;
        };
        if depth == path.len() || path[depth..] == ["*"] {
            found.insert(Target { module: path[..depth].to_vec(), item: None });
        }
        if path[depth..] == ["*"] {
            return found;
        }
        // An item may have the same name as the module. Then the path means both.
        let shallowest = if depth == path.len() { depth - 1 } else { depth };
        for depth in shallowest.max(1)..=depth {
            let Some(name) = path.get(depth) else { continue };
            found.extend(self.item(&path[..depth], name, &path[depth + 1..], seen));
        }
        found
    }

    /// What this name means in this module: an item that it declares, or what an import has there.
    fn item(
        &self,
        module: &[String],
        name: &str,
        rest: &[String],
        seen: &mut BTreeSet<Segments>,
    ) -> BTreeSet<Target> {
        if self.scopes_of(module).any(|scope| scope.items.contains(name)) {
            return BTreeSet::from([Target { module: module.to_vec(), item: Some(name.to_owned()) }]);
        }
        let mut found = BTreeSet::new();
        let imports = || self.scopes_of(module).flat_map(|scope| &scope.imports);
        for import in imports().filter(|import| import.name.as_deref() == Some(name)) {
            found.extend(self.resolve_import(module, import, rest, seen));
        }
        if found.is_empty() {
            let rest = [&[name.to_owned()], rest].concat();
            for import in imports().filter(|import| import.name.is_none()) {
                found.extend(self.resolve_import(module, import, &rest, seen));
            }
        }
        found
    }

    /// Resolves the import's own path before it adds the rest. Otherwise the path of an import from
    /// another crate, such as `use log::log`, could grow without end.
    fn resolve_import(
        &self,
        module: &[String],
        import: &Import,
        rest: &[String],
        seen: &mut BTreeSet<Segments>,
    ) -> BTreeSet<Target> {
        let Some(path) = absolute(module, &import.path) else { return BTreeSet::new() };
        let mut found = BTreeSet::new();
        for target in self.resolve(&path, seen) {
            if target.item.is_some() || rest.is_empty() {
                found.insert(target);
            } else {
                found.extend(self.resolve(&[target.module.as_slice(), rest].concat(), seen));
            }
        }
        found
    }

    /// Everything that a scope uses, each with the path that uses it. An import counts by itself; a
    /// re-export counts only if its name is used here.
    pub(crate) fn uses(&self, scope: &Scope) -> Vec<(String, Target)> {
        let mut uses = Vec::new();
        let mut add = |path: &[String]| {
            let text = path.join("::");
            uses.extend(self.targets(&scope.module, path).into_iter().map(|target| (text.clone(), target)));
        };
        for import in &scope.imports {
            match &import.name {
                Some(name) if import.is_reexport && !scope.words.contains(name) => {}
                Some(_) => add(&import.path),
                // Which names of a `*` are used here can only be seen from the words.
                None => scope.words.iter().for_each(|word| add(std::slice::from_ref(word))),
            }
        }
        scope.paths.iter().for_each(|path| add(path));
        let defined = |name: &String| self.scopes.iter().find(|other| other.macros.contains(name));
        for (name, other) in scope.macros_used.iter().filter_map(|name| Some((name, defined(name)?))) {
            let target = Target { module: other.module.clone(), item: Some(name.clone()) };
            uses.push((format!("{name}!"), target));
        }
        uses
    }

    /// Which file uses which, except in tests. To declare or to import a module as a whole is not a
    /// use.
    pub(crate) fn edges(&self) -> Edges {
        let mut edges = Edges::new();
        for scope in self.scopes.iter().filter(|scope| !scope.is_test) {
            for (path, target) in self.uses(scope) {
                // Only an attribute can use a module as a whole.
                if target.item.is_none() && !path.ends_with("::*") {
                    continue;
                }
                let of_module = || self.scopes_of(&target.module).filter(|scope| !scope.is_test);
                let declares =
                    |scope: &&Scope| target.item.as_ref().is_some_and(|item| scope.items.contains(item));
                let definer = of_module().find(declares).or_else(|| of_module().next());
                let Some(used) = definer.filter(|used| used.file != scope.file) else { continue };
                edges.entry(scope.file.clone()).or_default().entry(used.file.clone()).or_insert(path);
            }
        }
        edges
    }
}

/// The path with the name of its crate as the first segment.
fn absolute(module: &[String], path: &[String]) -> Option<Segments> {
    let (first, rest) = path.split_first()?;
    let mut base = match first.as_str() {
        "crate" => module[..1].to_vec(),
        // In the library itself, this is the name of a module like others.
        LIBRARY if module[0] != LIBRARY => vec![LIBRARY.to_owned()],
        "self" => module.to_vec(),
        "super" => module.split_last()?.1.to_vec(),
        _ => [module, std::slice::from_ref(first)].concat(),
    };
    for segment in rest {
        if segment == "super" {
            base.pop();
        } else {
            base.push(segment.clone());
        }
    }
    (!base.is_empty()).then_some(base)
}

/// The files that have a declared module's code in one build or another, and whether that build is
/// only for tests.
fn files_of(files: &BTreeMap<String, String>, parent: &str, declared: &Declared) -> Vec<(String, bool)> {
    let (directory, name) = parent.rsplit_once('/').unwrap_or(("", parent));
    let stem = name.trim_end_matches(".rs");
    let join = |parts: &[&str]| {
        let parts = parts.iter().flat_map(|part| part.split('/')).filter(|part| !["", "."].contains(part));
        let mut joined: Vec<&str> = Vec::new();
        for part in parts {
            match part {
                ".." => _ = joined.pop(),
                _ => joined.push(part),
            }
        }
        joined.join("/")
    };
    let own = if ["mod", "lib", "main"].contains(&stem) { "" } else { stem };
    let within = declared.within.join("/");
    // `#[path]` is relative to the file's directory; in an inline module, to the directory of that
    // module's children.
    let of_path = |path: &str| match declared.within.as_slice() {
        [] => join(&[directory, path]),
        _ => join(&[directory, own, &within, path]),
    };
    let mut found = Vec::new();
    match &declared.path {
        Some(path) => found.push((of_path(path), declared.is_test)),
        None => {
            let name = declared.module.last().map_or("", String::as_str);
            let flat = join(&[directory, own, &within, &format!("{name}.rs")]);
            let nested = join(&[directory, own, &within, name, "mod.rs"]);
            found.push((if files.contains_key(&nested) { nested } else { flat }, declared.is_test));
        }
    }
    if let Some((path, is_test)) = &declared.other_path {
        found.push((of_path(path), declared.is_test || *is_test));
    }
    found
}

/// The cycles: sets of files each of which uses all others, directly or through other files.
pub(crate) fn cycles(edges: &Edges) -> Vec<BTreeSet<String>> {
    let reachable = |from: &str| {
        let (mut reached, mut next) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(file) = next.pop() {
            for used in edges.get(&file).into_iter().flat_map(|used| used.keys()) {
                if reached.insert(used.clone()) {
                    next.push(used.clone());
                }
            }
        }
        reached
    };
    let all: BTreeMap<&str, BTreeSet<String>> =
        edges.keys().map(|file| (file.as_str(), reachable(file))).collect();
    let mut cycles = BTreeSet::new();
    for (file, reached) in &all {
        let leads_back = |other: &&String| all.get(other.as_str()).is_some_and(|back| back.contains(*file));
        let cycle: BTreeSet<String> = reached.iter().filter(leads_back).cloned().collect();
        if cycle.len() > 1 {
            cycles.insert(cycle);
        }
    }
    cycles.into_iter().collect()
}
