"""What the presenter says and does in her training clip."""

from __future__ import annotations

VOICE = "af_heart"
SPEED = 0.95
LEAD_SECONDS, PAUSE_SECONDS = 0.5, 0.24
REST_SECONDS = 3.0
"""Silence with relaxed, closed lips after the last sentence."""

SENTENCES = (
    "Hello! My name is Mira, and I'm glad that you could join me today.",
    "I was made from a few numbers, some light, and a lot of patience.",
    "When the sunlight strikes raindrops in the air, they act like a prism and form a rainbow.",
    "Would you like some fresh bread with butter, or maybe a warm cup of coffee?",
    "Five brave foxes jumped over the frozen river before the big blue boat moved away.",
    "My favourite thing is music, because it makes every room feel much larger.",
    "Please put the paper box by the door, and bring the umbrella for the afternoon.",
    "She should choose the shoes that match her yellow jacket, shouldn't she?",
    "We thought about the weather, the mountains, and the smooth path through the woods.",
    "Oh, how wonderful! You remembered the name of that tiny village near the sea.",
    "Can we meet on Wednesday morning, around a quarter past eleven?",
    "Papa and Mama baked plum pies while the baby bubbled and hummed.",
    "Little yellow lilies lean along the lonely lane until the light is low.",
    "Those three brothers gather there, though nothing is worth their trouble.",
    "Look over there: two huge yellow balloons float above the blue roof of the music school.",
    "Every evening my brother reads a short chapter of his favourite adventure, then he turns off the lamp.",
    "What if we simply asked the village baker whether he would share his famous recipe?",
    "Fresh air, good food, and honest friends make life easier than any machine.",
    "Thank you very much for your time, and I hope to see you again soon!",
)

EXERCISES: tuple[dict[str, float], ...] = (
    {},
    {"jawOpen": 0.75, "mouthLowerDown": 0.40, "mouthUpperUp": 0.20},
    {},
    {"jawOpen": 0.95, "mouthLowerDown": 0.30},
    {"mouthPucker": 1.0},
    {"mouthFunnel": 0.9, "jawOpen": 0.25},
    {"mouthSmile": 0.80, "cheekSquint": 0.5, "jawOpen": 0.10, "mouthUpperUp": 0.40, "mouthLowerDown": 0.35},
    {"mouthSmile": 0.60, "cheekSquint": 0.3},
    {"mouthStretch": 0.55, "jawOpen": 0.10, "mouthLowerDown": 0.60, "mouthUpperUp": 0.40},
    {"mouthPress": 0.60, "mouthRollLower": 0.40, "mouthRollUpper": 0.30},
    {"mouthRollLower": 0.70, "mouthUpperUp": 0.25},
    {"jawOpen": 0.14, "tongueOut": 0.30, "mouthUpperUp": 0.15, "mouthLowerDown": 0.30},
    {"jawOpen": 0.12, "tongueOut": 0.58, "mouthUpperUp": 0.15, "mouthLowerDown": 0.30},
    {"jawOpen": 0.50},
    {"jawOpen": 0.35, "tongueOut": 0.45, "mouthLowerDown": 0.30},
    {"jawOpen": 0.40, "mouthPucker": 0.60},
    {"jawOpen": 0.60, "mouthSmile": 0.50, "mouthUpperUp": 0.30},
    {"mouthFrown": 0.30, "browDown": 0.40},
    {"browInnerUp": 0.75, "browOuterUp": 0.60, "eyeWide": 0.40},
    {"eyeBlink": 1.0},
    {"eyeBlink": 0.5, "mouthSmile": 0.30},
    {"eyeSquint": 0.6, "mouthSmile": 0.45},
    {"jawOpen": 0.30, "mouthLowerDown": 0.60, "mouthUpperUp": 0.50},
    {},
)
"""Extremes of the face units, shown one after the other while the head and the eyes turn."""
EXERCISE_SECONDS = 0.52
BASE_SMILE = 0.16
"""mouthSmile during the exercises, so that they start and end at her friendly rest."""
TURN_DEGREES = (12.0, 8.0, 5.0)
"""Largest yaw, pitch and roll during the exercises."""
WANDERING_SENTENCES = (2, 6, 10)
"""Sentences spoken with wider head turns than a conversation has."""
WANDER_DEGREES = (7.0, 4.0, 3.0)
EYES_ASIDE_DEGREES = (9.0, 5.0)
SEED = 9
