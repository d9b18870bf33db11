//! Circles among the modules of a crate, found in its source.
//!
//! A module depends on another when its code names it: in a `use`, or with a path that begins with `crate`, `super`, `self`, a module below it or a
//! name that a `use` brought in. A name that a module only passes on (`pub use`) counts for the module that defines it. Test code does not count.
//!
//! The modules below one parent must have an order. `a::x` naming `b::y` is an edge from `a` to `b` in their common parent. What a module and those
//! above or below it name of each other is no edge: a parent may hold what its modules share.
//! What the source does not name is not seen: methods of a type that came from elsewhere, paths inside strings.

use anyhow::{Context, Result};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;

/// How often a name is followed from one `use` to the next; deeper chains are taken for foreign names.
const MOST_RENAMES: usize = 16;

/// Reads a source file; `None` when it does not exist.
type Read<'a> = &'a dyn Fn(&Path) -> Option<String>;

/// One module of a crate.
#[derive(Default)]
struct Module {
    /// Its path from the crate's root, which is empty for the root itself.
    path: Vec<String>,
    parent: Option<usize>,
    children: BTreeMap<String, usize>,
    /// Items that are defined here.
    items: BTreeSet<String>,
    /// What a `use` brings in: name → path.
    imports: BTreeMap<String, Vec<String>>,
    /// What `use …::*` brings in.
    globs: Vec<Vec<String>>,
    /// All paths that the code names.
    named: Vec<Vec<String>>,
}

/// The modules of one crate; the first is its root.
struct Crate {
    modules: Vec<Module>,
}

/// Modules below one parent that all depend on each other.
#[derive(Debug, PartialEq, Eq)]
pub struct Knot {
    /// Their paths from the crate's root, in alphabetical order.
    pub modules: Vec<String>,
    /// The shortest circle in it, and who names whom on the way.
    pub circle: String,
}

/// Returns the knots of modules of the crate whose root file is `root`.
pub fn knots(root: &Path, read: Read) -> Result<Vec<Knot>> {
    let source = Crate::load(root, read)?;
    Ok(source.knots())
}

impl Crate {
    fn load(root: &Path, read: Read) -> Result<Self> {
        let mut it = Self {
            modules: vec![Module::default()],
        };
        let folder = root.parent().context("a root file without a folder")?;
        it.read_file(0, root, folder, read)?;
        Ok(it)
    }

    /// Reads a module's file. Files of modules below it lie in `folder`.
    fn read_file(&mut self, module: usize, file: &Path, folder: &Path, read: Read) -> Result<()> {
        let text = read(file).with_context(|| format!("no file {}", file.display()))?;
        let tokens: TokenStream = text
            .parse()
            .map_err(|e| anyhow::anyhow!("{}: not Rust: {e}", file.display()))?;
        self.scan(module, tokens, Some(folder), read)
            .with_context(|| file.display().to_string())
    }

    /// Goes through tokens of a module. `folder` is given where items of the module itself stand, not inside of them.
    fn scan(&mut self, module: usize, tokens: TokenStream, folder: Option<&Path>, read: Read) -> Result<()> {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while at < tokens.len() {
            at = match &tokens[at] {
                TokenTree::Punct(p) if p.as_char() == '#' => after_attribute(&tokens, at),
                TokenTree::Ident(word) if word == "mod" && ident(&tokens, at + 1).is_some() => {
                    self.module_item(module, &tokens[at + 1..], folder, read)?;
                    at + 3
                }
                TokenTree::Ident(word) if word == "use" && !is_punct(&tokens, at + 1, '<') => {
                    let end = end_of(&tokens, at, ';');
                    self.use_item(module, &tokens[at + 1..end]);
                    end + 1
                }
                TokenTree::Ident(word) => {
                    if folder.is_some() && DEFINES.contains(&word.to_string().as_str()) {
                        self.modules[module].items.extend(ident(&tokens, at + 1));
                    }
                    let (path, next) = path(&tokens, at);
                    if path.len() > 1 {
                        self.modules[module].named.push(path);
                    }
                    next
                }
                TokenTree::Group(group) => {
                    self.scan(module, group.stream(), None, read)?;
                    at + 1
                }
                _ => at + 1,
            };
        }
        Ok(())
    }

    /// `mod name;` or `mod name { … }`; `tokens` begin with the name.
    fn module_item(&mut self, parent: usize, tokens: &[TokenTree], folder: Option<&Path>, read: Read) -> Result<()> {
        let name = ident(tokens, 0).context("a module without a name")?;
        let folder = folder.context("a module inside of a function")?;
        let mut path = self.modules[parent].path.clone();
        path.push(name.clone());
        let module = self.modules.len();
        self.modules.push(Module {
            path,
            parent: Some(parent),
            ..Module::default()
        });
        self.modules[parent].children.insert(name.clone(), module);
        let below = folder.join(&name);
        if let Some(TokenTree::Group(body)) = tokens.get(1) {
            return self.scan(module, body.stream(), Some(&below), read);
        }
        let files = [folder.join(format!("{name}.rs")), below.join("mod.rs")];
        let file = files.iter().find(|f| read(f).is_some());
        let file = file.with_context(|| format!("no file of module {name}"))?;
        self.read_file(module, file, &below, read)
    }

    fn use_item(&mut self, module: usize, tree: &[TokenTree]) {
        let mut leaves = Vec::new();
        use_leaves(tree, &[], &mut leaves);
        let module = &mut self.modules[module];
        for (path, name) in leaves {
            match name {
                Some(name) => {
                    module.imports.insert(name, path.clone());
                }
                None => module.globs.push(path.clone()),
            }
            module.named.push(path);
        }
    }

    /// The module that defines what a path names. `None` for what is not of this crate.
    fn resolve(&self, from: usize, path: &[String], renames: usize) -> Option<usize> {
        if renames > MOST_RENAMES {
            return None;
        }
        let (first, mut rest) = path.split_first()?;
        let mut module = match first.as_str() {
            "crate" => 0,
            "self" => from,
            "super" => {
                let mut module = self.modules[from].parent?;
                while let Some((next, after)) = rest.split_first().filter(|(next, _)| *next == "super") {
                    debug_assert_eq!(next, "super");
                    (module, rest) = (self.modules[module].parent?, after);
                }
                module
            }
            name => {
                let own = &self.modules[from];
                match own.children.get(name) {
                    Some(child) => *child,
                    None => {
                        let import = own.imports.get(name).filter(|import| import.first() != Some(first))?;
                        return self.resolve(from, &[import, rest].concat(), renames + 1);
                    }
                }
            }
        };
        while let Some((name, after)) = rest.split_first() {
            let here = &self.modules[module];
            if let Some(child) = here.children.get(name) {
                (module, rest) = (*child, after);
            } else if here.items.contains(name) {
                break;
            } else if let Some(import) = here.imports.get(name) {
                let path = [import, after].concat();
                return self.resolve(module, &path, renames + 1);
            } else {
                return Some(self.through_globs(module, name, renames).unwrap_or(module));
            }
        }
        Some(module)
    }

    /// The module from which `name` comes by a `use …::*` of `module`.
    fn through_globs(&self, module: usize, name: &String, renames: usize) -> Option<usize> {
        self.modules[module].globs.iter().find_map(|glob| {
            let source = self.resolve(module, glob, renames + 1)?;
            let found = &self.modules[source];
            let known =
                found.items.contains(name) || found.children.contains_key(name) || found.imports.contains_key(name);
            let path = ["self".to_owned(), name.clone()];
            known.then(|| self.resolve(source, &path, renames + 1)).flatten()
        })
    }

    fn knots(&self) -> Vec<Knot> {
        let mut levels: BTreeMap<&[String], Edges> = BTreeMap::new();
        for (from, module) in self.modules.iter().enumerate() {
            for path in &module.named {
                let Some(to) = self.resolve(from, path, 0) else {
                    continue;
                };
                let (a, b) = (&module.path, &self.modules[to].path);
                let common = a.iter().zip(b).take_while(|(a, b)| a == b).count();
                if let (Some(a), Some(b)) = (a.get(common), b.get(common)) {
                    let edges = levels.entry(&module.path[..common]).or_default();
                    let named = edges.entry(a.clone()).or_default().entry(b.clone()).or_default();
                    named.insert(format!("{} names {}", module.path.join("::"), path.join("::")));
                }
            }
        }
        let mut knots = Vec::new();
        for (parent, edges) in &levels {
            let full = |name: &String| [*parent, std::slice::from_ref(name)].concat().join("::");
            for (group, circle) in groups_in_circles(edges) {
                let names: Vec<String> = circle.iter().map(full).collect();
                let because = circle.windows(2).map(|edge| witness(&edges[&edge[0]][&edge[1]]));
                knots.push(Knot {
                    modules: group.into_iter().map(full).collect(),
                    circle: format!("{} ({})", names.join(" -> "), Vec::from_iter(because).join(", ")),
                });
            }
        }
        knots
    }
}

/// Module → the modules beside it that it depends on → what is named there, by whom.
type Edges = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// One place of an edge for the reader, a `use` rather than what it brought in.
fn witness(named: &BTreeSet<String>) -> String {
    let is_use = |text: &&String| text.contains(" crate::") || text.contains(" super::");
    named
        .iter()
        .find(is_use)
        .or_else(|| named.first())
        .cloned()
        .unwrap_or_default()
}

/// Words before the name of an item.
const DEFINES: [&str; 9] = [
    "fn", "struct", "enum", "union", "trait", "type", "const", "static", "macro",
];
/// Words that begin an item; what else an attribute stands before ends with a comma.
const ITEMS: [&str; 16] = [
    "pub", "mod", "use", "fn", "struct", "enum", "union", "trait", "type", "const", "static", "impl", "unsafe",
    "async", "extern", "let",
];

fn ident(tokens: &[TokenTree], at: usize) -> Option<String> {
    match tokens.get(at)? {
        TokenTree::Ident(name) => Some(name.to_string()),
        _ => None,
    }
}

fn is_punct(tokens: &[TokenTree], at: usize, sign: char) -> bool {
    matches!(tokens.get(at), Some(TokenTree::Punct(p)) if p.as_char() == sign)
}

fn is_colons(tokens: &[TokenTree], at: usize) -> bool {
    is_punct(tokens, at, ':') && is_punct(tokens, at + 1, ':')
}

/// Where the next `sign` stands, or the end.
fn end_of(tokens: &[TokenTree], from: usize, sign: char) -> usize {
    (from..tokens.len())
        .find(|i| is_punct(tokens, *i, sign))
        .unwrap_or(tokens.len())
}

/// The path that begins at an identifier, and where the next token is.
fn path(tokens: &[TokenTree], at: usize) -> (Vec<String>, usize) {
    let (mut path, mut at) = (Vec::from_iter(ident(tokens, at)), at + 1);
    while is_colons(tokens, at) {
        let Some(name) = ident(tokens, at + 2) else { break };
        path.push(name);
        at += 3;
    }
    (path, at)
}

/// Behind an attribute, which begins at `at`; with what it stands before, when that is for tests alone.
fn after_attribute(tokens: &[TokenTree], at: usize) -> usize {
    let group = if is_punct(tokens, at + 1, '!') { at + 2 } else { at + 1 };
    let Some(TokenTree::Group(attribute)) = tokens.get(group) else {
        return at + 1;
    };
    if !is_for_tests(attribute.stream()) {
        return group + 1;
    }
    let mut next = group + 1;
    while is_punct(tokens, next, '#') {
        next += 2;
    }
    if !ident(tokens, next).is_some_and(|word| ITEMS.contains(&word.as_str())) {
        return end_of(tokens, next, ',') + 1;
    }
    let is_end = |i: &usize| match &tokens[*i] {
        TokenTree::Punct(p) => p.as_char() == ';',
        TokenTree::Group(g) => g.delimiter() == Delimiter::Brace,
        _ => false,
    };
    (next..tokens.len()).find(is_end).map_or(tokens.len(), |end| end + 1)
}

/// Whether an attribute is `cfg(test)` or `cfg(all(test, …))`.
fn is_for_tests(attribute: TokenStream) -> bool {
    let text: String = attribute.to_string().split_whitespace().collect();
    text == "cfg(test)" || text.starts_with("cfg(all(test,")
}

/// The paths of a `use` tree, each with the name that it brings in; without a name for `*`.
fn use_leaves(tree: &[TokenTree], before: &[String], leaves: &mut Vec<(Vec<String>, Option<String>)>) {
    let mut path = before.to_vec();
    let mut at = 0;
    while at < tree.len() {
        match &tree[at] {
            TokenTree::Ident(word) if word == "as" => {
                // `as _` brings in no name, but one that no path has does no harm.
                leaves.push((path, ident(tree, at + 1)));
                return;
            }
            TokenTree::Ident(word) if word == "self" && !before.is_empty() => {}
            TokenTree::Ident(word) => path.push(word.to_string()),
            TokenTree::Punct(p) if p.as_char() == '*' => {
                leaves.push((path, None));
                return;
            }
            TokenTree::Group(group) => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                for branch in inner.split(|t| matches!(t, TokenTree::Punct(p) if p.as_char() == ',')) {
                    if !branch.is_empty() {
                        use_leaves(branch, &path, leaves);
                    }
                }
                return;
            }
            _ => {}
        }
        at += 1;
    }
    let name = path.last().cloned();
    leaves.push((path, name));
}

/// Every group of names that reach each other, with its shortest circle.
fn groups_in_circles(edges: &Edges) -> Vec<(BTreeSet<&String>, Vec<String>)> {
    let mut groups: Vec<(BTreeSet<&String>, Vec<String>)> = Vec::new();
    for start in edges.keys() {
        if groups.iter().any(|(group, _)| group.contains(start)) {
            continue;
        }
        let returns = |name: &&String| way(edges, start, name).is_some() && way(edges, name, start).is_some();
        let group: BTreeSet<&String> = edges.keys().filter(returns).collect();
        let shortest = group
            .iter()
            .filter_map(|name| way(edges, name, name))
            .min_by_key(Vec::len);
        groups.extend(shortest.map(|circle| (group, circle)));
    }
    groups
}

/// The shortest way over at least one edge, with both ends.
fn way(edges: &Edges, from: &str, to: &str) -> Option<Vec<String>> {
    let mut queue = VecDeque::from([vec![from.to_owned()]]);
    let mut seen = BTreeSet::new();
    while let Some(way) = queue.pop_front() {
        for next in way
            .last()
            .and_then(|last| edges.get(last))
            .into_iter()
            .flat_map(BTreeMap::keys)
        {
            if next == to {
                return Some([way, vec![next.clone()]].concat());
            }
            if seen.insert(next.clone()) {
                queue.push_back([&way[..], std::slice::from_ref(next)].concat());
            }
        }
    }
    None
}

#[cfg(test)]
mod tests;
