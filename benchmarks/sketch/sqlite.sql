CREATE TABLE users (
    id INTEGER PRIMARY KEY,
    username TEXT NOT NULL UNIQUE,
    email TEXT NOT NULL UNIQUE,
    password TEXT NOT NULL,
    bio TEXT,
    image TEXT,
    articles_count INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL
);
CREATE TABLE articles (
    id INTEGER PRIMARY KEY,
    slug TEXT NOT NULL UNIQUE,
    title TEXT NOT NULL,
    description TEXT NOT NULL,
    tags TEXT NOT NULL,
    author_id INTEGER NOT NULL REFERENCES users,
    favourites_count INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX articles_by_author ON articles (author_id, id DESC);
CREATE TABLE tags (
    name TEXT PRIMARY KEY,
    articles_count INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE article_tags (
    tag TEXT NOT NULL,
    article_id INTEGER NOT NULL REFERENCES articles ON DELETE CASCADE,
    PRIMARY KEY (tag, article_id)
) WITHOUT ROWID;
CREATE TABLE favourites (
    user_id INTEGER NOT NULL REFERENCES users,
    article_id INTEGER NOT NULL REFERENCES articles ON DELETE CASCADE,
    PRIMARY KEY (user_id, article_id)
) WITHOUT ROWID;
CREATE INDEX favourites_by_article ON favourites (article_id);
CREATE TABLE follows (
    follower_id INTEGER NOT NULL REFERENCES users,
    followed_id INTEGER NOT NULL REFERENCES users,
    PRIMARY KEY (follower_id, followed_id)
) WITHOUT ROWID;
CREATE TABLE comments (
    id INTEGER PRIMARY KEY,
    article_id INTEGER NOT NULL REFERENCES articles ON DELETE CASCADE,
    author_id INTEGER NOT NULL REFERENCES users,
    body TEXT NOT NULL,
    created_at TEXT NOT NULL
);
CREATE INDEX comments_by_article ON comments (article_id, id);
CREATE TABLE totals (
    articles INTEGER NOT NULL
);
