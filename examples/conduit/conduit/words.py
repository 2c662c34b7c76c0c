"""What the seeded people are called and what they write about."""

FIRST_NAMES = (
    "Ada", "Aino", "Amir", "Ana", "Arjun", "Asha", "Aylin", "Björn", "Chidi", "Chloe", "Dina", "Diego",
    "Eero", "Elif", "Emil", "Esi", "Eva", "Farid", "Freya", "Gita", "Hana", "Hugo", "Ida", "Imani", "Inés",
    "Ivo", "Jin", "Jonas", "Kaia", "Kofi", "Lars", "Leila", "Li", "Lucía", "Maja", "Mateo", "Mei", "Milan",
    "Mina", "Nadia", "Niko", "Nora", "Olu", "Omar", "Otto", "Petra", "Priya", "Quinn", "Rafa", "Rosa",
    "Sami", "Sora", "Tariq", "Thea", "Uma", "Vera", "Wei", "Yara", "Yuki", "Zoë",
)  # fmt: skip
LAST_NAMES = (
    "Abara", "Ahlgren", "Bauer", "Costa", "Dahl", "Diallo", "Ersoy", "Fischer", "Fuentes", "García",
    "Haddad", "Hansen", "Ito", "Jansen", "Kaur", "Kim", "Kowalski", "Laurent", "Lindqvist", "Mäkinen",
    "Mensah", "Moreau", "Nakamura", "Novák", "Nguyen", "Okafor", "Olsen", "Park", "Patel", "Petrov",
    "Rossi", "Sato", "Schmidt", "Silva", "Singh", "Smith", "Tanaka", "Torres", "Virtanen", "Weber", "Wong",
    "Yilmaz", "Zhang",
)  # fmt: skip
TAGS = (
    "programming", "databases", "life", "travel", "food", "music", "books", "python", "performance",
    "design", "photography", "running", "history", "science", "gardening", "film", "testing", "linux",
    "cycling", "coffee", "languages", "architecture", "astronomy", "chess", "climbing", "cooking",
    "distributed-systems", "economics", "education", "electronics", "fermentation", "game-design",
    "geology", "hiking", "jazz", "knitting", "maps", "mathematics", "minimalism", "open-source", "painting",
    "philosophy", "physics", "poetry", "privacy", "psychology", "sailing", "security", "sleep", "sqlite",
    "statistics", "typography", "weather", "web", "wildlife", "woodwork", "writing", "yoga", "日本語", "日々",
)  # fmt: skip
VERBS = (
    "How I learned to love", "Ten quiet truths about", "What nobody tells you about", "A year of",
    "Against", "In praise of", "The hidden cost of", "Notes on", "Rethinking", "Why I gave up",
    "A beginner's guide to", "The case for", "Living with", "Debugging", "The slow art of",
    "Small steps towards", "An honest look at",
)  # fmt: skip
TOPICS = (
    "simple systems", "cold coffee", "night trains", "sourdough", "index design", "early mornings",
    "long walks", "code review", "old maps", "bicycle repair", "back-pressure", "handwriting", "silence",
    "query plans", "kitchen gardens", "public libraries", "boring technology", "field recording",
    "cache invalidation", "winter swimming", "unit tests", "second-hand books", "error messages",
    "city rivers", "naming things", "monochrome film", "deadlines", "paper notebooks", "rainy weekends",
    "eventual consistency",
)  # fmt: skip
SENTENCES = (
    "It began with a question that I could not answer at breakfast.",
    "Measure first; the bottleneck is seldom where the argument is loudest.",
    "My grandmother did this without a recipe, and so can you.",
    "After the third attempt I finally read the manual.",
    "The path was longer than the map had promised, and better.",
    "Nobody notices a system that works, which is the whole point.",
    "There is a kind of patience that only slow tools can teach.",
    "We kept the old one running for a year, just in case.",
    "What surprised me was how little was needed.",
    "Write it down, then sleep on it, then throw half of it away.",
    "The numbers said one thing and my intuition another; the numbers won.",
    "Everything that can be postponed was postponed until it no longer mattered.",
    "Une idée simple, bien tenue, vaut mieux que dix promesses.",
    "Am Ende blieb eine einzige Zeile übrig.",
    "小さく始めて、必要になったら育てる。",
    "You will make this mistake once, and remember it for ever. 🌱",
)  # fmt: skip
