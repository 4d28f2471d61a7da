//! A conversation as the tokens a model was trained to see, by the chat template in its file.
//!
//! What people write must not become control tokens, yet a template should see it as it is (templates trim it and look
//! into it). So a character that occurs nowhere in the conversation is put inside every control spelling of a content
//! before rendering; the rendering is split at the control tokens that are left, which are the template's own; and the
//! character is taken out again from the plain parts, which are encoded as plain text.

use minijinja::{Environment, ErrorKind, Value, context};
use serde::{Deserialize, Serialize};

use super::{Gguf, ModelError, Tokenizer, clock, tokenizer::Piece};

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message of `role`.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self { role, content: content.into() }
    }
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions that stand before the conversation.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The name that chat templates use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

/// A model's chat template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
}

/// For models without a template whose tokenizer has the ChatML tokens.
const CHATML: &str = "{% for message in messages %}\
    {{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}";
/// For models without a template: each message on a line of its own, after its role.
const LINES: &str = "{{ bos_token }}{% for message in messages %}\
    {{ message['role'] + ': ' + message['content'] + '\\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}";
const NAME: &str = "chat";

impl ChatTemplate {
    /// The template of a model file. Without one: ChatML where the tokenizer has its tokens, else lines of
    /// `role: content`.
    pub fn from_gguf(gguf: &Gguf, tokenizer: &Tokenizer) -> Result<Self, ModelError> {
        let source = match gguf.find::<&str>("tokenizer.chat_template")? {
            Some(source) => source,
            None if ["<|im_start|>", "<|im_end|>"].iter().all(|token| tokenizer.has_control(token)) => CHATML,
            None => LINES,
        };
        let (bos, eos) = (tokenizer.bos_text(), if source == LINES { String::new() } else { tokenizer.eos_text() });
        let bos = if source == LINES && tokenizer.bos().is_none() { String::new() } else { bos };

        let mut environment = Environment::new();
        environment.set_syntax(
            minijinja::syntax::SyntaxConfig::builder()
                .trim_blocks(true)
                .lstrip_blocks(true)
                .build()
                .map_err(template_error)?,
        );
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |why: String| -> Result<Value, minijinja::Error> {
            Err(minijinja::Error::new(ErrorKind::InvalidOperation, why))
        });
        environment.add_function("strftime_now", |format: String| {
            clock::strftime_now(&format).map_err(|directive| {
                minijinja::Error::new(ErrorKind::InvalidOperation, format!("strftime_now does not know `{directive}`"))
            })
        });
        environment.add_template_owned(NAME, source.to_owned()).map_err(template_error)?;
        Ok(Self { environment, bos, eos })
    }

    /// The whole conversation, ready for the model's next answer.
    pub fn prompt(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>, ModelError> {
        let [inside] = unused_chars(messages)?;
        let marked: Vec<_> = messages.iter().map(|message| mark(tokenizer, message, inside)).collect();
        Ok(encode(tokenizer, &self.render(&marked)?, inside))
    }

    /// What follows the text of the last assistant message: the end of that turn, the user's new message and the start
    /// of the next answer. `messages` end with `[.., assistant, user]`, and a sequence that holds everything up to the
    /// reply's last token goes on with these tokens. [`ModelError::NoContinuation`] where the template writes the
    /// earlier turns differently now that another follows; then only a whole [`prompt`](Self::prompt) is right.
    pub fn continuation(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>, ModelError> {
        let [.., Message { role: Role::Assistant, .. }, Message { role: Role::User, .. }] = messages else {
            return Err(ModelError::NoContinuation);
        };
        let [inside, after] = unused_chars(messages)?;
        let mut marked: Vec<_> = messages.iter().map(|message| mark(tokenizer, message, inside)).collect();
        let reply = marked.len() - 2;
        let before = self.render(&marked[..reply])?;
        marked[reply].content.push(after);
        let whole = self.render(&marked)?;

        // Up to the reply the rendering must be what the reply was an answer to, or the cached tokens are stale.
        let (written, rest) =
            whole.strip_prefix(&before).and_then(|rest| rest.split_once(after)).ok_or(ModelError::NoContinuation)?;
        let said = marked[reply].content.trim_end_matches(after);
        if written.trim() != said.trim() || rest.contains(after) {
            return Err(ModelError::NoContinuation);
        }
        Ok(encode(tokenizer, rest, inside))
    }

    fn render(&self, messages: &[Message]) -> Result<String, ModelError> {
        let messages: Vec<Value> = messages
            .iter()
            .map(|message| context! { role => message.role.as_str(), content => message.content.as_str() })
            .collect();
        let template = self.environment.get_template(NAME).map_err(template_error)?;
        template
            .render(context! {
                messages => messages,
                add_generation_prompt => true,
                bos_token => self.bos.as_str(),
                eos_token => self.eos.as_str(),
            })
            .map_err(template_error)
    }
}

/// Characters of a private-use plane that occur in none of the messages. A template's own text has none of them either,
/// unless it was made to.
fn unused_chars<const N: usize>(messages: &[Message]) -> Result<[char; N], ModelError> {
    let unused: Vec<char> = ('\u{F0000}'..='\u{FFFFD}')
        .filter(|c| !messages.iter().any(|message| message.content.contains(*c)))
        .take(N)
        .collect();
    unused.try_into().map_err(|_| ModelError::Template {
        why: "the conversation uses every character of Unicode's plane 15, none is left to mark it with".to_owned(),
    })
}

/// A message whose control spellings are broken up by `inside`.
fn mark(tokenizer: &Tokenizer, message: &Message, inside: char) -> Message {
    let text = &message.content;
    let mut content = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        content.push(c);
        // Also where spellings overlap: each is broken after its first character.
        if tokenizer.starts_with_control(&text[at..]) {
            content.push(inside);
        }
    }
    Message { role: message.role, content }
}

/// The tokens of a rendering: the template's control tokens, and everything else as plain text without the marks.
fn encode(tokenizer: &Tokenizer, rendered: &str, inside: char) -> Vec<u32> {
    let mut ids = Vec::new();
    for piece in tokenizer.split_control(rendered) {
        match piece {
            Piece::Control(id) => ids.push(id),
            Piece::Plain(text) if text.contains(inside) => ids.extend(tokenizer.encode(&text.replace(inside, ""))),
            Piece::Plain(text) => ids.extend(tokenizer.encode(text)),
        }
    }
    ids
}

fn template_error(error: minijinja::Error) -> ModelError {
    // What a template raised is its own words; everything else needs to say where.
    let why = match (error.kind(), error.detail()) {
        (ErrorKind::InvalidOperation, Some(detail)) => detail.to_owned(),
        _ => error.to_string(),
    };
    ModelError::Template { why }
}
