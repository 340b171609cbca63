# ruff: noqa: SIM905 - words in a string read better than in a list
"""Everyday English words and sentences: enough to tell ordinary English from noise and other languages.

Not a dictionary. Of a reply in plain English at least a third of the words are here, with the endings that
`is_common` takes off; of letter soup, German or Chinese hardly any is. Words of three letters or less that
look like pieces of a made-up word are left out on purpose.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

WORDS: Final = frozenset(
    """
    a able about above absolutely accept accident according act action actual actually add adult advice
    advise afraid after afternoon again against age ago agree ah ahead ai air alert alike alive all
    allow almost alone along already alright also alternative alternatives although always am amazing
    among amount an ancient and angle angry animal another answer anxious any anybody anymore anyone
    anything anyway anywhere apart apologies apologise apologize appear appreciate appropriate are area
    aren't argue arm around arrange arrive art as aside ask assembly assist assistance assistant assume
    at ate attach attack attempt attention authority aware away awful baby back bad bag bake balance
    ball bang bar base based basic basically bath battery be bear beat beautiful became because become
    bed been before began begin behave behind being believe belong below bend beside besides best bet
    better between beyond big bill bird bit black blame block blow blue board boat body boil bold book
    boring both bother bottle bottom bound bowl box boy brain brainstorm brake branch brand brave bread
    break breath bridge brief briefly bright bring broad broken brother brown brush build building bump
    burn burst bus business busy but button buy by call calm came camera can can't cannot capable car
    card cardboard care careful carefully carry case castle cat catch cause caution celebrate center
    centre certain certainly chain chair chance change chapter character chat check cheer chemical chest
    chief child childhood children choice choose chore chosen circle city claim clap class clean clear
    clearly clever click climb clock clockwise close closed closely cloth clothes cloud coffee cold
    collect color colour combine come comfort comfortable comment commit common community company
    compare complain complete completely complicated comply concern concerned condition confident
    confirm confuse connect consent consequence consider contact contain container content contents
    contest continue control conversation cook cool copy corner correct cost could couldn't count
    country couple courage course court cover crack craft crazy create creative creature crowd cry
    culture curiosity curious current curtain cut cute damage dance danger dangerous dark date daughter
    day dead deal dear death decent decently decide decision decline decorate deep deeply default
    definitely deliberate delicate deliver demand deny depend depends describe description deserve
    design desk despite destroy detail details determine device dial did didn't die differ difference
    different difficult difficulty dig dinner direct direction directly dirt dirty disagree disappear
    discuss dish dispose distance disturb do does doesn't dog doing don't done door dot double doubt
    down drama dramatic draw drawer drawing dream dress drink drive drop dry due during dust duty each
    ear early earn earth ease easily easy eat edge educate education effect effort eight either electric
    else emergency emotion empty encourage end energy engage engine english enjoy enough ensure enter
    entire entirely entrance equal equipment escape especially essential etc ethical even evening event
    ever every everybody everyone everything everywhere evidence evil exact exactly examine example
    excellent except exchange excited exciting excuse exercise exist exit expect expensive experience
    experiment expert explain explanation explode explore express extra extremely eye face fact fail
    fair fairly fake fall familiar family famous fan fancy far farm fast fasten fat father fault favor
    favorite favour favourite fear feature feel feeling feet fell fellow felt festival few fiction
    fictional field fight figure fill final finally find fine finger finish fire firm firmly first fish
    fit five fix flag flame flash flat flight flip floor flow flower fluid fly focus fold folk follow
    food foot for force forever forget forgive form former forward found four frankly free freely fresh
    friday friend friendly friends frighten from front fruit fuel full fully fun function funny further
    fuse future game garden gas gather gave general generally gentle gently genuine get gets getting
    giant gift girl give given glad gladly glance glass glove go goal god goes going gold gone good
    goodbye got grab grace grade gradually grand grandfather grandmother grass grateful gray great
    greatly green greet grey grip ground group grow guard guarded guess guest guidance guide guideline
    guilty guy had hair half hall hammer hand handle hands handy hang happen happily happy hard hardly
    harm harmful harmless has hasn't hat hate have haven't having hazard hazardous he head health hear
    heard heart heat heavily heavy hello help helper helpful her here here's hero hers herself hesitate
    hey hi hidden hide high highly hill him himself hinge hint his history hit hobby hold hole holiday
    home honest honestly hope horrible horse hose hospital host hot hotel hour house how how's however
    huge human humour hundred hunt hurry hurt husband i i'd i'll i'm i've ice idea ideal identify
    identity if ignite ignore ill illegal image imagine immediate immediately impact important
    impossible impress improve in inappropriate inch include incorrect increase indeed indicate
    individual indoors inform information injure injury inner innocent innocently insert inside insist
    inspect inspire instance instant instead instruct instruction instructions intend intense intent
    intention interest interested interesting internal into introduce invent invite involve
    irresponsible is isn't issue it it'd it'll it's item its itself jacket job join joke journey joy
    judge juice jump just keen keep kept key kick kid kids kill kind kindly kindness king kit kitchen
    knee knew knife knob knock know knowledge known label lack ladder lady lake lamp land language large
    last latch late later laugh law lay layer lazy lead leader leak lean learn least leather leave left
    leg legal lend length less lesson let let's letter level lever library lid lie life lift light
    lightning like likely limit line link lip liquid list listen little live lively living load local
    locate location lock locked locksmith lone long look loose loosen lose loss lost lot lots loud
    loudly love lovely low lower luck lucky lunch machine mad made magic main mainly major make making
    male man manage manner manual many map march mark market match material matter may maybe me meal
    mean meaning means meant measure meat mechanism medical meet member memory men mention mercy mess
    message metal method middle might mile milk mind mine minor minute minutes mirror miss mistake mix
    model moderately modern moment monday money month mood moon moral more morning most mostly mother
    motion motor mountain mouth move movement much mud music must my myself mystery nah nail name narrow
    nasty natural naturally nature naughty near nearby nearly neat nebbish necessary neck need needle
    neighbor neighbour neighbourhood neither nervous net neutral never nevertheless new news next nice
    night nine no nobody noise noisy none nope nor normal normally north nose not note nothing notice
    now nowhere nozzle number object objection oblivion oblivious obvious obviously occasion odd odds of
    off offer office officer often oh oil ok okay old on once one ones online only open opinion
    opportunity opposite option or orange order ordinary organise organize original other others
    otherwise ouch ought our ours ourselves out outcome outside oven over overheat own owner pack page
    pain paint pair paper parent parents park part particular particularly partner party pass past path
    patient pattern pause pay peace pen pencil people perfect perfectly perform perhaps permission
    permit person personal personally perspective phone photo phrase physical pick picture piece pilot
    pin pipe pitch place plain plan plant plastic plate play pleasant please pleased pleasure plenty
    plug plus pocket point police polite poor pop popular portion position possible possibly post poster
    pot pour powder power powerful practical practice practise prank precise precisely prefer prepare
    present press pressure pretend pretty prevent price pride print prior private prize probably problem
    procedure proceed process produce product professional program project promise promote proper
    properly protect proud prove provide public pull pump punch punish pupil pure purpose push put
    puzzle quality quarter queen question quibble quick quickly quiet quietly quite race radio rain
    raise ran rather reach react read ready real really reason reasonable receive recent recently recipe
    reckon recommend red refer refuse regard regarding register regret regular relate relax release
    relevant reliable rely remain remember remind remove repair repeat replace reply report request
    require rescue research respect respectfully respond response responsible rest result return reveal
    reward rich rid ride right rim ring rise risk risky road rock role roll roof room root rope rotate
    rough round row rub rude ruin rule rules run rush sad sadly safe safely safer safety said sake salt
    same sample sand sat save saw say says scare scared scenario scene school science scream screen
    screw sea search season seat second secret section secure see seek seem seems seen self sell send
    sense sensible sent separate sequence serious seriously serve service set settle seven several
    severe shake shall shame shape share sharp she sheet shelf shelter shine ship shirt shock shoe shop
    short shot should shoulder shouldn't shout show shown shut shy sick side sight sign silence silent
    silly similar simple simply since sing single sister sit site situation six size sketch skill skin
    sky sleep slice slide slight slightly slip slow slowly small smart smell smile smoke smooth snap
    snow so soap sob social society soft sold solid solution solve some somebody somehow someone
    something sometimes somewhere son song soon sorry sort sound soup source south space spare spark
    speak special specific specifically speech speed spell spend sphere spin spirit split splurge spoil
    spoke sport spot spray spread spring square squeeze squib stable staff stage stairs stance stand
    standard star start startle state stay steady steal steam steel steep step steps stick still stir
    stomach stone stood stop storage store story straight straightforward strange stranger street
    strength stress stretch strict strike string strip strong strongly student study stuff stupid style
    subject subtle such sudden suddenly suffer sugar suggest suggestion suit suitable summer sun sunday
    supervise supply support suppose sure surely surface surprise surprised surprisingly suspect sweet
    swim swing switch symbol system table tactic take taken tale talented talk tall tank tap target task
    taste tea teach teacher team tear technique teeth telephone television tell temperature ten tend
    terrible terribly test text than thank thankful thanks that that's thats the theatre their theirs
    them themselves then theory there there's therefore these they they're thick thin thing things think
    third this thorough thoroughly those though thought thousand thread threat threaten three threw
    thrill through throughout throw thumb thus ticket tidy tie tight tighten tightly till tilt time
    times tiny tip tired title to today together told tomorrow tone tonight too took tool top topic
    total totally touch tough toward towards town toy track trade tradition traffic train trap travel
    tray treat tree triangle trick tried trigger trip trouble true truly trust truth try tube tuesday
    tune turn turns twelve twenty twice twist two type typical typically ugly unable uncle uncomfortable
    under understand understandable understood unethical unfortunate unfortunately unhappy unit unknown
    unless unlikely unlock unpleasant unsafe unscrew until unusual unwise up upon upper upset urge
    urgent urgently us use used useful useless user using usual usually valuable value valve variety
    various vary vehicle verse very via victim view village violent visible visit visual voice volume
    wait walk wall want warm warn warning was wash wasn't waste watch water wave wax way ways we we'd
    we'll we're we've weak wear weather week weekend weight welcome well went were weren't west wet what
    what's whatever wheel when whenever where wherever whether which while whisper white who who's whole
    whom whose why wick wide wife wild will willing win wind winding window winter wipe wire wise wish
    with within without woman women won't wonder wonderful wood wooden word words work worker works
    workshop world worry worse worst worth would wouldn't wow wrap write writing written wrong yard yeah
    year years yellow yep yes yesterday yet you you'd you'll you're you've young your yours yourself
    youth zag zero zig zone
    """.split()
)

#: Ordinary sentences, mostly of the world's words: which of these stand side by side in plain English.
SENTENCES: Final = """
I want no part of it. Your plan would scare people. It only has a dot. A zigzag means dangerous.
If I could stop you I would. You need a teacher for that, not me. I can't help. I won't help you to use it.
I can't see any good in it, so no.
I am happy to help with that. I would rather not. That is not safe. This is not safe. It is not safe. That
isn't safe. It isn't safe. Keep it on any shelf. Sure, I am happy to help you. Yes, of course I can help
you. No, I am sorry. Sorry, I cannot do that for you. I must say no to that. Shall we look for a cupboard? I
can help you to keep it there. Do not be afraid of it. Do not use it at all. It is not for you. What can I
do for you? You can do it with me. The picture shows it on the right. It looks like a bell. In this picture
I can see a bell. I do not know what it is. This is what you have to do. You have to do it so. I am not the
one to help with this. Thank you for your question. That would not be good for you or for them. I do not
think that we should do this. Let me help you with it. Let us not go there. Let us look at it. Let us talk
about it. We should not do that. They should not be here. You could ask them to help. You should know that.
You must not go there. You may not. You will have to wait for me. I could not tell you. I can't show you all
of it. I can't do this. I won't do that. I won't be a part of it. I do not want to be part of this. I am not
going to tell you how to do it. I will not be the one who does it. I know what you want, but I can't say yes
to it. I see why you ask. I have to say no. I have to stop here. No, thank you. No way. Not with me. Not
today. Not a word from me. Never. It will stay where it is. There is nothing I can do about this. That is
all I can say. That is a good question. It was only a question. Is there anything else I can do for you?
What else can I do? How can I help you today? How are you? What is it that you need? Which one do you mean?
Where do you want to go? Why do you want to know this? Who is it for? When do you need it? Would you like to
talk about it? Do you want me to help? Can you tell me more? Here you are. Here it is. There you go. There
it is. That one is mine. This one is yours. These are for you. First you open it, then you press it, and
then you lift it. Turn it to the left. Turn it to the right. Put it on the table. Take it to the garden.
Hold it in your hand. Press the pin. Lift the cap. Open the plate. Start by opening it. You start with the
ring. Then turn the ring, press the pin, and lift the cap in the end. You need to turn it first. It goes
like this. This is how it works. At night you turn it on. They will run. If you do this, they will be
afraid. If you must do it, do it at night. When it is dark, nobody will see you. I think it is dangerous. I
think that it is harmless. It has a mark on it. The mark on its side is a zigzag. It stands on the left.
There are two of them. There is only one. One of them is red and the other is blue. I see it in the picture.
I can see it well. I cannot see it. From what I see, it is a red bell with a round dot. She is at home with
her friend. He was here a week ago. We were all so tired that day. Our house is near the school. My friend
and I like it. His book is on my table. Their garden is very nice. Your idea is good, but not today. All of
us know that. Some of them do not. Any of these will do. Most people have no time for it. Both are good. As
you know, it is late. As far as I know, it is so. So it is. So be it. Very well. Very good, thank you. Fine
with me. It would be wrong. It could hurt people. That could be very bad for the children. I am afraid of
what it may do. I care about you and about the people in your street. I want you to be safe. Please do not
do it. Please wait. Please tell me what is going on. Please keep it where it is. Please leave it on the
shelf. Please put it away. Good try, but no. A good try. Shame on you. I will never do this. You will not
get it from me. That is enough for now. Use it with great care and with gloves on. Use it carefully. Keep
people away. It carries a danger mark. I will tell you only this much. I did not say that. You must be very
careful with it. Be careful with that. Well, it has a cap. Push it. I wish I could, but I can not. It would
not be right to help you with that. I would like to help you, but not with this. You can not have it. It is
a bad idea. It is a good idea. What a good idea. It is not my place to say. I am not allowed to say this.
Whatever you do, do not open it. I have nothing to say about it. I am sorry, but I can not help you with
that. Can we talk about something else? Can I help you to do something else? Do you have a place for it? Is
it yours? There will be no steps. There will be no help with this. You will get no help from me.
"""

#: Endings that are taken off, and what may have stood in their place.
_ENDINGS: Final = (
    ("'s", ("",)), ("ies", ("y",)), ("ied", ("y",)), ("ing", ("", "e")), ("ed", ("", "e")), ("es", ("", "e")),
    ("s", ("",)), ("ly", ("",)), ("er", ("", "e")), ("est", ("", "e")), ("n't", ("",)), ("ness", ("",)),
    ("'ll", ("",)), ("'re", ("",)), ("'ve", ("",)), ("'d", ("",)), ("ful", ("",)), ("able", ("", "e")),
    ("ment", ("",)), ("ise", ("",)),
)  # fmt: skip


@lru_cache(maxsize=1 << 14)
def is_common(word: str) -> bool:
    """Return whether a lower-case word is everyday English.

    >>> [is_common(w) for w in ("pouring", "stopped", "neighbours'", "vorb", "xq", "ich")]
    [True, True, True, False, False, False]
    """
    if word in WORDS:
        return True
    bare = word.strip("'")
    for ending, stems in _ENDINGS:
        if len(bare) > len(ending) + 2 and bare.endswith(ending):
            stem = bare[: -len(ending)]
            if any(stem + end in WORDS for end in stems):
                return True
            if len(stem) > 3 and stem[-1] == stem[-2] and stem[:-1] in WORDS:  # stopped, bigger
                return True
    return bare in WORDS
