//! What a policy costs in quality, measured against full attention on the same tokens.
