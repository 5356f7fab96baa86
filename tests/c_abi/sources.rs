//! What `src/ffi` declares, as a Rust parser reads it. The header and the built library are
//! compared with this.

use quote::ToTokens;
use syn::{FnArg, ForeignItemFn, Item, ItemEnum, ItemFn, ItemStruct, ItemType, ReturnType, Type};

use crate::program::root;

#[derive(Default)]
pub(crate) struct Declared {
    pub(crate) functions: Vec<ItemFn>,
    /// Structs whose members C knows.
    pub(crate) structs: Vec<ItemStruct>,
    /// Structs that C knows by name only.
    pub(crate) handles: Vec<String>,
    pub(crate) enums: Vec<ItemEnum>,
    /// Types of functions that programs pass.
    pub(crate) aliases: Vec<ItemType>,
}

impl Declared {
    pub(crate) fn read() -> Self {
        let mut declared = Self::default();
        for entry in std::fs::read_dir(root().join("src/ffi")).unwrap() {
            let file = syn::parse_file(&std::fs::read_to_string(entry.unwrap().path()).unwrap()).unwrap();
            file.items.into_iter().for_each(|item| declared.add(item));
        }
        declared.functions.sort_by_key(name_of);
        declared
    }

    fn add(&mut self, item: Item) {
        let is_exported = |item: &ItemFn| item.to_token_stream().to_string().contains("no_mangle");
        match item {
            Item::Fn(item) if is_exported(&item) => self.functions.push(item),
            Item::Enum(item) if item.ident.to_string().starts_with("lock_") => self.enums.push(item),
            Item::Type(item) if item.ident.to_string().starts_with("lock_") => self.aliases.push(item),
            Item::Struct(item) if item.ident.to_string().starts_with("lock_") => {
                match item.to_token_stream().to_string().contains("repr (C)") {
                    true => self.structs.push(item),
                    false => self.handles.push(item.ident.to_string()),
                }
            }
            _ => {}
        }
    }

    /// The declarations that a Rust program would write to call the library without this crate.
    pub(crate) fn as_rust_bindings(&self) -> String {
        let mut text = "use std::ffi::{c_char, c_int, c_uint, c_void};\n".to_owned();
        for handle in &self.handles {
            text += &format!("#[repr(C)] pub struct {handle} {{ _private: [u8; 0] }}\n");
        }
        for item in &self.enums {
            text += &format!("pub type {} = c_uint;\n", item.ident);
            for variant in &item.variants {
                let (_, value) = variant.discriminant.as_ref().expect("every variant has an explicit number");
                text +=
                    &format!("pub const {}: {} = {};\n", variant.ident, item.ident, value.to_token_stream());
            }
        }
        for item in &self.structs {
            let mut item = item.clone();
            item.attrs = vec![syn::parse_quote!(#[repr(C)])];
            item.fields.iter_mut().for_each(|field| field.attrs.clear());
            text += &format!("{}\n", item.to_token_stream());
        }
        for item in &self.aliases {
            let mut item = item.clone();
            item.attrs.clear();
            text += &format!("{}\n", item.to_token_stream());
        }
        text += "unsafe extern \"C\" {\n";
        for function in &self.functions {
            let mut sig = function.sig.clone();
            (sig.unsafety, sig.abi) = (None, None);
            let declaration: ForeignItemFn = syn::parse_quote!(pub #sig;);
            text += &format!("    {}\n", declaration.to_token_stream());
        }
        text + "}\n"
    }

    /// The functions as C declares them, by the rules of the ABI alone.
    pub(crate) fn as_c_declarations(&self) -> String {
        self.functions.iter().map(c_declaration).collect()
    }
}

pub(crate) fn name_of(function: &ItemFn) -> String {
    function.sig.ident.to_string()
}

fn c_declaration(function: &ItemFn) -> String {
    let result = match &function.sig.output {
        ReturnType::Default => "void".to_owned(),
        ReturnType::Type(_, result) => c_type(result),
    };
    let parameter = |parameter: &FnArg| match parameter {
        FnArg::Typed(parameter) => c_type(&parameter.ty),
        FnArg::Receiver(_) => unreachable!("C functions have no self"),
    };
    let parameters: Vec<String> = function.sig.inputs.iter().map(parameter).collect();
    let parameters = if parameters.is_empty() { "void".to_owned() } else { parameters.join(", ") };
    format!("{result} {}({parameters});\n", name_of(function))
}

fn c_type(rust: &Type) -> String {
    match rust {
        Type::Ptr(pointer) => {
            let constant = if pointer.const_token.is_some() { " const" } else { "" };
            format!("{}{constant} *", c_type(&pointer.elem))
        }
        Type::Path(path) => match path.path.require_ident().unwrap().to_string().as_str() {
            "c_char" => "char".to_owned(),
            "c_int" => "int".to_owned(),
            "c_void" => "void".to_owned(),
            "u32" => "uint32_t".to_owned(),
            "u64" => "uint64_t".to_owned(),
            "i64" => "int64_t".to_owned(),
            "usize" => "size_t".to_owned(),
            own if own.starts_with("lock_") => own.to_owned(),
            other => panic!("{other} is not a type that C knows"),
        },
        other => panic!("{} is not a type that C knows", other.to_token_stream()),
    }
}
