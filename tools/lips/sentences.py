"""Endless varied sentences for training the lips: small grammars over word lists of our own.

The words were chosen so that every sound of the language, above all those seen on the lips, comes in many
neighbourhoods. What is said makes little sense; how it sounds is what matters.
"""

from __future__ import annotations

import random

_ENGLISH: dict[str, str] = {
    "person": "my mother|Peter|the baker|a young painter|Barbara|the captain|our neighbour|Philip|Victoria|"
    "a farmer|the tall woman|George|Julia|the mayor|her brother|a chef|the shoemaker|William|Yvonne|"
    "the judge|Martha|a thoughtful child|Oliver|the piano player|your uncle|Sheila|"
    "the boy from the village|Thomas|Rachel|everyone",
    "thing": "the purple umbrella|a paper boat|the big brown box|five fresh fish|the smooth path|"
    "a yellow jacket|the wooden bridge|an apple pie|the missing key|a cup of coffee|the garage door|"
    "a warm blanket|the old map|the first page|a pair of shoes|the television|the golden ring|"
    "a thousand stones|the moving van|a juicy pear|the tiny mouse|the blue vase|a long letter|"
    "the church bell|a heavy hammer|the rubber ball|the oil lamp|a cheap watch|the unusual treasure|"
    "the youngest puppy|an orange towel|the wolf's voice|a loaf of bread",
    "place": "by the river|above the village|in the middle of the room|near the beach|behind the theatre|"
    "on top of the hill|at the railway station|under the apple tree|beyond the valley|"
    "inside the museum|in the warm kitchen|across the street|over there|between two mountains|"
    "outside the shop|at the farm",
    "time": "on Wednesday morning|before breakfast|after the storm|in February|every other evening|"
    "at half past five|last Thursday|for about an hour|during the winter|as soon as possible|"
    "at the usual time|once upon a time|in the month of June|long before midnight|twice a week|"
    "just now",
    "verb": "found|bought|moved|painted|borrowed|wrapped|remembered|gave away|threw|described|measured|"
    "followed|covered|watched|pushed|brought back|chose|shaped|believed in|put down|showed me|"
    "weighed|fixed|loved|used|picked up|carried|washed|saved|opened",
    "doing": "move the table|buy some butter|join the choir|put the books away|wash the white shirt|"
    "feed the five foxes|open the map|bring my umbrella|measure the roof|boil the water|"
    "watch the parade|visit your father|choose a flavour|throw the ball|leave the bathroom|"
    "fill the bowl|prepare the vegetables|shout for joy",
    "quality": "smooth|bright|awful|beautiful|rough|very warm|cheap|thin|brave|heavy|unusual|"
    "rather good|yellow|far too small|wonderful|quite simple|huge|marvellous|soft|as big as a house",
    "sentence": "{person} {verb} {thing} {place}.|{time}, {person} {verb} {thing}.|"
    "{person} {verb} {thing} {time}.|Would you {doing} {time}?|Could we {doing} {place}, please?|"
    "I'd love to {doing}, but {person} {verb} {thing}.|How {quality} it is {place} {time}!|"
    "{thing} was {quality}, and {person} {verb} it {place}.|Please {doing}, then {doing}.|"
    "Why has {person} never {verb} {thing}?|Oh, {thing} looks {quality}!|"
    "When {person} {verb} {thing}, nobody could {doing}.|You should {doing}, shouldn't you?|"
    "Maybe {person} will {doing} {time}.|Yes, of course. {person} {verb} {thing}.|"
    "We thought that {thing} would be {quality}.|Whoever {verb} {thing} must {doing} {place}.",
}

_MANDARIN: dict[str, str] = {
    "person": "我妈妈|老朋友|那位老师|小明|我们的邻居|他哥哥|一个画家|王先生|李小姐|我爸爸|医生|服务员|"
    "那个孩子|外婆",
    "thing": "一杯咖啡|那本旧书|新鲜的苹果|白色的帽子|五条大鱼|一把雨伞|那座木桥|黄色的衣服|一张地图|热面包|"
    "一只小猫|绿色的瓶子|那封长信|红苹果|一双皮鞋|玻璃杯",
    "place": "在火车站旁边|在河边|在厨房里|在学校门口|在山上|在电影院后面|"
    "在公园中间|在北京|在海边|在窗户旁边",
    "time": "星期三早上|昨天晚上|下雨以后|每天下午|八月份|吃饭以前|半个小时以前|今年春天|明天中午|刚才",
    "verb": "买了|找到了|画了|忘了|打开了|带来了|看见了|修好了|包好了|卖掉了|拿走了|喜欢",
    "doing": "去买牛奶|把门打开|唱一首歌|学习普通话|帮我搬桌子|去看电影|写一封信|喝一点儿水|洗衣服|跑步",
    "quality": "非常漂亮|很便宜|特别大|有一点儿远|真好吃|比较安静|很舒服|不太贵|又白又软",
    "sentence": "{person}{time}{verb}{thing}。|{time}，{person}{place}{verb}{thing}。|你想{place}{doing}吗？|"
    "{thing}{quality}。|{person}说，{thing}{quality}！|请你{time}{doing}，好不好？|"
    "如果{person}{doing}，我们就{doing}。|为什么{person}不愿意{doing}？|{place}，{thing}{quality}。",
}


def sentences(language: str, count: int, seed: int) -> list[str]:
    """Different sentences.

    Args:
        language: `en` or `zh`.
        count: How many.
        seed: Another seed, other sentences.
    """
    grammar = {"en": _ENGLISH, "zh": _MANDARIN}[language]
    words = {name: text.split("|") for name, text in grammar.items()}
    chance = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        text = chance.choice(words["sentence"])
        while "{" in text:
            name = text[text.index("{") + 1 : text.index("}")]
            text = text.replace("{" + name + "}", chance.choice(words[name]), 1)
        found[text[0].upper() + text[1:]] = None
    return list(found)
