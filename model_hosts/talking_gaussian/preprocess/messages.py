"""What the quality gate says: for each code what is wrong and what to do, in plain words."""

from __future__ import annotations

MESSAGES: dict[str, dict[str, tuple[str, str]]] = {
    "VIDEO_UNREADABLE": {
        "en": ("The video cannot be read: {reason}.", "Export it again as MP4 (H.264) and try once more."),
        "zh": ("无法读取视频：{reason}。", "请重新导出为 MP4（H.264）后再试。"),
    },
    "TOO_SHORT": {
        "en": (
            "The video is only {seconds:.1f} s long.",
            "Record at least {least:.0f} s; 20 s to 5 min are best.",
        ),
        "zh": ("视频只有 {seconds:.1f} 秒。", "请至少录制 {least:.0f} 秒，最好 20 秒到 5 分钟。"),
    },
    "SHORT": {
        "en": (
            "The video is {seconds:.1f} s long; the lips will know few sounds.",
            "Record 20 s to 5 min of speech for a better avatar.",
        ),
        "zh": ("视频只有 {seconds:.1f} 秒，口型会不够丰富。", "录制 20 秒到 5 分钟的讲话，效果会更好。"),
    },
    "TOO_LONG": {
        "en": ("The video is {seconds:.0f} s long.", "Cut it to the best {most:.0f} s or less."),
        "zh": ("视频长达 {seconds:.0f} 秒。", "请截取效果最好的 {most:.0f} 秒以内。"),
    },
    "NO_FACE": {
        "en": (
            "No face can be found.",
            "Film one person from the front, with the whole face in the picture.",
        ),
        "zh": ("找不到人脸。", "请正面拍摄一个人，整张脸都要在画面里。"),
    },
    "FACE_LOST": {
        "en": (
            "The face cannot be seen in {share:.0%} of the video.",
            "Keep the whole face in the picture all the time, or cut these parts out.",
        ),
        "zh": ("视频中有 {share:.0%} 的时间看不到人脸。", "请让整张脸始终在画面里，或剪掉这些部分。"),
    },
    "TWO_FACES": {
        "en": (
            "More than one face is in the picture.",
            "Film one person alone; take posters with faces away.",
        ),
        "zh": ("画面里不止一张人脸。", "请只拍一个人，并移开带有人脸的海报。"),
    },
    "FACE_TOO_SMALL": {
        "en": (
            "The face is only {pixels:.0f} pixels high.",
            "Come nearer or film in a higher resolution: {least:.0f} pixels at least.",
        ),
        "zh": ("人脸高度只有 {pixels:.0f} 像素。", "请靠近镜头或提高分辨率，至少 {least:.0f} 像素。"),
    },
    "FACE_SMALL": {
        "en": (
            "The face is {pixels:.0f} pixels high, so the avatar will not be sharp.",
            "Come nearer or film in a higher resolution: {least:.0f} pixels are good.",
        ),
        "zh": (
            "人脸高度为 {pixels:.0f} 像素，头像会不够清晰。",
            "请靠近镜头或提高分辨率，{least:.0f} 像素较好。",
        ),
    },
    "FACE_CUT_OFF": {
        "en": (
            "The face reaches the edge of the picture.",
            "Leave room around the head; the shoulders should be seen as well.",
        ),
        "zh": ("人脸碰到了画面边缘。", "请在头部四周留出空间，肩膀也要入镜。"),
    },
    "FACE_COVERED": {
        "en": (
            "Something is before the face, perhaps a hand.",
            "Keep hands, hair and microphones off the face.",
        ),
        "zh": ("有东西（可能是手）挡住了脸。", "请不要让手、头发或麦克风挡住脸。"),
    },
    "CUT": {
        "en": ("The video has cuts.", "Use one take; choose the longest part between two cuts."),
        "zh": ("视频中有剪辑切换。", "请使用一镜到底的片段，选取两次切换之间最长的一段。"),
    },
    "OUT_OF_SYNC": {
        "en": (
            "Sound and lips are {seconds:.2f} s apart, more than can be put right.",
            "Correct the delay of the sound and try again.",
        ),
        "zh": ("声音和口型相差 {seconds:.2f} 秒，超出了可校正的范围。", "请先校正声音延迟再试。"),
    },
    "SYNC_CORRECTED": {
        "en": (
            "Sound and lips were {seconds:.2f} s apart; the sound was moved.",
            "Nothing needs to be done.",
        ),
        "zh": ("声音和口型相差 {seconds:.2f} 秒，已自动校正。", "无需处理。"),
    },
    "SYNC_UNKNOWN": {
        "en": (
            "The sound does not explain how the lips move.",
            "Check that the person in the picture is the one who is heard, and that nothing else is loud.",
        ),
        "zh": ("声音与口型对不上。", "请确认说话的就是画面里的人，并且没有其他较大的声音。"),
    },
    "NO_SOUND": {
        "en": ("The video has no sound.", "Record it with sound: lips are learnt from speech."),
        "zh": ("视频没有声音。", "请录制带声音的视频：口型要从语音中学习。"),
    },
    "NO_SPEECH": {
        "en": ("Hardly any speech is heard.", "Speak all the time, loud enough, near the microphone."),
        "zh": ("几乎听不到讲话。", "请靠近麦克风，以足够的音量持续讲话。"),
    },
    "TOO_DARK": {
        "en": ("The face is too dark.", "Put light in front of you, not behind you."),
        "zh": ("脸部太暗。", "请让光源在前方，而不是背后。"),
    },
    "DARK": {
        "en": ("The face is rather dark.", "More light from the front gives a better picture."),
        "zh": ("脸部偏暗。", "正面多一些光线，画面会更好。"),
    },
    "HEAD_TURNED": {
        "en": (
            "The head is turned {degrees:.0f}° away from the camera.",
            "Look into the camera while you speak.",
        ),
        "zh": ("头部偏离镜头 {degrees:.0f}°。", "讲话时请看着镜头。"),
    },
    "HEAD_TURNS_FAR": {
        "en": (
            "The head turns far away in {share:.0%} of the video.",
            "Small movements are fine; do not look to the side for long.",
        ),
        "zh": ("视频中有 {share:.0%} 的时间头部转得太偏。", "轻微转动没有问题，但不要长时间看向旁边。"),
    },
    "FRAME_RATE_TOO_LOW": {
        "en": ("The video has only {rate:.1f} pictures a second.", "Record 25 or 30 pictures a second."),
        "zh": ("视频每秒只有 {rate:.1f} 帧。", "请以每秒 25 或 30 帧录制。"),
    },
    "FRAME_RATE_LOW": {
        "en": (
            "The video has {rate:.1f} pictures a second; quick lips are missed.",
            "Record 25 or 30 pictures a second.",
        ),
        "zh": ("视频每秒 {rate:.1f} 帧，会漏掉快速的口型。", "请以每秒 25 或 30 帧录制。"),
    },
    "TOO_BLURRED": {
        "en": ("The face is out of focus.", "Focus on the face, hold the camera still, and use more light."),
        "zh": ("脸部模糊不清。", "请对焦到脸部，固定相机，并增加光线。"),
    },
    "BLURRED": {
        "en": ("The face is a little soft.", "Focus on the face and avoid strong compression."),
        "zh": ("脸部略有模糊。", "请对焦到脸部，并避免过度压缩。"),
    },
    "CAMERA_MOVES": {
        "en": ("The background moves.", "Put the camera on a stand, in front of a background that is still."),
        "zh": ("背景在移动。", "请把相机固定好，并选择静止的背景。"),
    },
}
"""For each code and language: what is wrong, and what to do."""

LANGUAGES = ("en", "zh")
